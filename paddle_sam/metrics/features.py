"""Features of images, kept so that each image is looked at once, and FID and its kin of them.

How images are brought to Inception's 299 pixels changes FID by several points (Parmar et al. 2022,
"On Aliased Resizing", arXiv 2104.11222), so it is one of two named ways, the same for all images;
torchvision's network has StarGAN v2's. AlexNet's features stand in where Inception's weights cannot
be had; distances in them are comparable with each other only, not with published FID or KID.

On disk an entry belongs to the content of an image file and to the settings of the extractor, to
nothing else: renamed, moved or shared images are found again, changed ones are not. An entry may
also belong to several images together.

FID (Heusel et al. 2017, arXiv 1706.08500) is the Frechet distance between the Gaussians with the
features' means and covariances. KID (Binkowski et al. 2018, arXiv 1801.01401) is the squared
maximum mean discrepancy under a cubic kernel, estimated without bias. Precision (Kynkaanniemi et
al. 2019, arXiv 1904.06991) is the share of generated images that look real, recall the share of
real images that the generator could make; "look real" means to lie in the union of balls around
the real features, each reaching its k-th nearest neighbour. All are in double precision.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
from PIL import Image
from tqdm import tqdm

from paddle_sam.core.files import sha256
from paddle_sam.core.folders import PART_SIZE, Store
from paddle_sam.core.images import check_image, resize, to_network
from paddle_sam.core.processes import batches
from paddle_sam.core.weights import locate
from paddle_sam.errors import CheckpointError, ConfigError, check_shape
from paddle_sam.imagesets.archive import ImageSource, content_digest, read_source
from paddle_sam.networks.image_features import FEATURES, INPUT_SIZE, LPIPS, InceptionV3
from paddle_sam.networks.load import load

TORCHVISION = "torchvision"  # Inception's weights, and how images are brought to its size
_ALEX_SMALLEST = 64  # AlexNet's poolings leave nothing of images much smaller
ALEX_SIZE = 224  # of the images that AlexNet was trained on
_IMAGENET = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)
NEIGHBOURS = 3  # the k of the paper
_BLOCK = 1024


class InceptionFeatures:
    """Computes the features of an Inception-v3.

    Args:
        network: the network, with its weights.
        weights_id: tells these weights from others in caches.
        resizing: `clean` (bicubic, antialiased, not rounded, as in clean-FID) or `legacy`
            (bilinear without antialiasing, as in pytorch-fid, to compare with older figures); for
            torchvision's network `torchvision`.
        batch_size: images per pass; changes speed and memory only.
    """

    def __init__(
        self,
        network: InceptionV3,
        weights_id: str,
        resizing: str = "clean",
        batch_size: int = 32,
    ):
        self.network, self.resizing, self.batch_size = network, resizing, batch_size
        # Everything but the images that the features depend on.
        self.settings = {"weights": weights_id, "resizing": resizing, "features": FEATURES}

    @classmethod
    def from_file(
        cls, path: str | os.PathLike, device: str = "auto", **options
    ) -> InceptionFeatures:
        """Load the converted weights; `options` are those of the class.

        Raises:
            CheckpointError: the file is missing, damaged, or holds another network.
        """
        torchvision = options.get("resizing") == TORCHVISION
        name = "--torchvision_path" if torchvision else "--inception_path"
        network = load(path, device=device, expect=InceptionV3, option=name)
        if network.torchvision != torchvision:
            found, wanted = ("torchvision", "TensorFlow")[:: 1 if network.torchvision else -1]
            said = f"{name}: {path} is the Inception-v3 of {found}, expected that of {wanted}"
            raise CheckpointError(f"{said}. Name that, or change --features.")
        return cls(network, sha256(locate(path)), **options)

    @paddle.no_grad()
    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return float32 features [N, 2048] of uint8 RGB images [H, W, 3] of any sizes."""
        to_input = _INPUTS[self.resizing]
        found = [np.zeros((0, FEATURES), np.float32)]
        for batch in batches(images, self.batch_size):
            x = np.stack([to_input(image) for image in batch])
            found.append(self.network(paddle.to_tensor(x)).numpy())
        return np.concatenate(found)


class AlexFeatures:
    """Computes the activations that LPIPS compares, averaged over the image.

    Args:
        network: LPIPS with AlexNet.
        size: height and width that images are brought to; None keeps images of one size as they
            are (at least 64 pixels).
        batch_size: images per pass; changes speed and memory only.
    """

    def __init__(self, network: LPIPS, size: int | None = None, batch_size: int = 32):
        self.network, self.size, self.batch_size = network, size, batch_size

    @paddle.no_grad()
    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return features [N, 1152] of uint8 RGB images [H, W, 3]; their mean square is about 1."""
        size = self.size
        if size is None and min(images[0].shape[:2]) < _ALEX_SMALLEST:
            size = _ALEX_SMALLEST
        found = []
        for batch in batches(images, self.batch_size):
            batch = batch if size is None else [resize(image, size) for image in batch]
            taps = self.network.extract(paddle.to_tensor(to_network(batch)))
            # Activations have norm 1 at each pixel; the factor gives all layers equal weight.
            means = [tap.mean(axis=3).mean(axis=2) * math.sqrt(tap.shape[1]) for tap in taps]
            found.append(paddle.concat(means, axis=1).numpy())
        return np.concatenate(found)


def open_store(
    inception_path: str | os.PathLike, folder: str | os.PathLike, device: str = "auto", **options
) -> FeatureStore:
    """Return a store in `folder` of Inception features; for the rest see `from_file`."""
    features = InceptionFeatures.from_file(inception_path, device, **options)
    return FeatureStore(Path(folder), features, features.settings)


def clean_input(image: np.ndarray) -> np.ndarray:
    """Return a uint8 RGB image [H, W, 3] as network input [3, 299, 299]: antialiased, in float.

    The range is that of the TensorFlow graph, (x - 128) / 128.
    """
    check_image("image", image)
    size = (INPUT_SIZE, INPUT_SIZE)
    planes = [Image.fromarray(plane.astype(np.float32)) for plane in np.moveaxis(image, -1, 0)]
    resized = np.stack([plane.resize(size, Image.Resampling.BICUBIC) for plane in planes])
    return (resized.clip(0, 255) - 128) / 128


def legacy_input(image: np.ndarray) -> np.ndarray:
    """Return a uint8 RGB image [H, W, 3] as network input [3, 299, 299]: bilinear, aliased.

    The range is that of the PyTorch port, 2 x / 255 - 1.
    """
    check_image("image", image)
    x = paddle.to_tensor(image.transpose(2, 0, 1)[None].astype(np.float32) / 255)
    x = F.interpolate(x, [INPUT_SIZE, INPUT_SIZE], mode="bilinear", align_corners=False)
    return (2 * x[0] - 1).numpy()


def torchvision_input(image: np.ndarray) -> np.ndarray:
    """Return a uint8 RGB image [H, W, 3] as torchvision's network input [3, 299, 299].

    As in StarGAN v2: bilinear and antialiased to 256, then 299 pixels; ImageNet's mean, deviation.
    """
    check_image("image", image)
    picture = Image.fromarray(image).resize((256, 256), Image.Resampling.BILINEAR)
    picture = picture.resize((INPUT_SIZE, INPUT_SIZE), Image.Resampling.BILINEAR)
    return ((np.asarray(picture, np.float32) / 255 - _IMAGENET[0]) / _IMAGENET[1]).transpose(
        2, 0, 1
    )


_INPUTS = {"clean": clean_input, "legacy": legacy_input, TORCHVISION: torchvision_input}


class FeatureStore(Store):
    """Features by image content.

    Args:
        folder: where to keep them; None keeps them in memory.
        extract: uint8 RGB images [H, W, 3] -> float features [N, D].
        settings: everything else that the features depend on, as plain values.
    """

    def __init__(
        self,
        folder: Path | None,
        extract: Callable[[Sequence[np.ndarray]], np.ndarray],
        settings: Mapping,
    ):
        super().__init__(folder, settings)
        self._extract = extract

    def of_files(
        self, paths: Sequence[ImageSource], what: str = "features", keep: bool = True
    ) -> np.ndarray:
        """Return the features [N, D] of image files, in their order; compute what is missing.

        Args:
            paths: at least one image, in folders or archives.
            what: label of the progress bar.
            keep: keep what is computed, in memory and in the folder.

        Raises:
            ImageError: a file cannot be read. What was computed before is kept.
            OutputError: the folder cannot be written.
        """
        bar = tqdm(paths, desc=f"{what}: reading", unit="image", disable=None, leave=False)
        digests = [content_digest(path) for path in bar]
        return self.of_made(
            digests, lambda chosen: [read_source(paths[i]) for i in chosen], what, keep
        )

    def of_made(
        self,
        keys: Sequence[str],
        make: Callable[[Sequence[int]], Sequence[np.ndarray]],
        what: str = "features",
        keep: bool = True,
    ) -> np.ndarray:
        """Return the features [N, D] of images that `make` makes; compute what is missing.

        Args:
            keys: for each image, a text that no other image has.
            make: positions among the keys -> their images, uint8 RGB [H, W, 3].
            what: label of the progress bar.
            keep: keep what is computed, in memory and in the folder.
        """
        if not keys:
            raise ConfigError("features: expected at least one image, found none")
        # Equal images are computed once.
        missing = list({key: i for i, key in enumerate(keys) if key not in self.rows}.values())
        made: dict[str, np.ndarray] = {}
        with tqdm(total=len(missing), desc=what, unit="image", disable=None) as progress:
            for start in range(0, len(missing), PART_SIZE):
                part = missing[start : start + PART_SIZE]
                found = dict(zip((keys[i] for i in part), self._extract(make(part)), strict=True))
                made |= found
                if keep:
                    self.keep(found)
                progress.update(len(part))
        return np.stack([made[key] if key in made else self.rows[key] for key in keys])


@dataclasses.dataclass(frozen=True, eq=False)
class Gaussian:
    """Mean [D], and a factor F [K, D], of any K, of the covariance F^T F; float64."""

    mean: np.ndarray
    factor: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Gaussian:
        """The Gaussian of features [N, D].

        Raises:
            ConfigError: fewer than two samples have no covariance.
        """
        check_shape("features", features, (None, None))
        if len(features) < 2:
            raise ConfigError(f"FID: expected at least 2 images in a set, found {len(features)}")
        features = np.asarray(features, np.float64)
        mean = features.mean(axis=0)
        # Centred first, so that no digits are lost however large the mean is.
        factor = (features - mean) / np.sqrt(len(features) - 1)
        return cls(mean, np.linalg.qr(factor, mode="r") if len(features) > len(mean) else factor)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """|m_a - m_b|^2 + Tr(C_a + C_b - 2 (C_a C_b)^(1/2)).

    The trace of the root is the sum of the singular values of F_a F_b^T, whose squares are the
    eigenvalues of C_a C_b: exact for the singular covariances of few images too, and quick then.
    """
    check_shape("mean", b.mean, a.mean.shape)
    trace_of_root = np.linalg.svd(a.factor @ b.factor.T, compute_uv=False).sum()
    traces = np.square(a.factor).sum() + np.square(b.factor).sum()
    return float(np.square(a.mean - b.mean).sum() + traces - 2 * trace_of_root)


def fid(a: np.ndarray, b: np.ndarray) -> float:
    """Frechet distance of two sets of features, [N, D] and [M, D]."""
    return frechet_distance(Gaussian.of(a), Gaussian.of(b))


def kid(
    a: np.ndarray, b: np.ndarray, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Kernel distance of two sets of features, [N, D] and [M, D]: mean and standard deviation.

    Over `subsets` random subsets of `subset_size` images of each set (of all images where there
    are fewer). The kernel is k(x, y) = (x.y / D + 1)^3.
    """
    check_shape("features", a, (None, b.shape[1]))
    size = min(subset_size, len(a), len(b))
    if size < 2:
        raise ConfigError(f"KID: expected at least 2 images in a set, found {size}")
    rng = np.random.default_rng(seed)
    distances = [
        _squared_mmd(
            a[rng.choice(len(a), size, replace=False)].astype(np.float64),
            b[rng.choice(len(b), size, replace=False)].astype(np.float64),
        )
        for _ in range(subsets)
    ]
    return float(np.mean(distances)), float(np.std(distances))


def _squared_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased estimate of the squared MMD of two samples [n, D] (their eq. 4)."""
    n = len(x)
    xx, yy, xy = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    within = (xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)) / (n * (n - 1))
    return within - 2 * xy.mean()


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3


def precision_recall(
    real: np.ndarray, generated: np.ndarray, neighbours: int = NEIGHBOURS
) -> tuple[float, float]:
    """Precision and recall of features [M, D] `generated` against [N, D] `real`.

    Raises:
        ConfigError: a set is too small to have that many neighbours.
    """
    check_shape("features", generated, (None, real.shape[1]))
    for name, features in (("real", real), ("generated", generated)):
        if len(features) <= neighbours:
            raise ConfigError(
                f"precision and recall: expected more than {neighbours} {name} images, found"
                f" {len(features)}"
            )
    real, generated = real.astype(np.float64), generated.astype(np.float64)
    precision = _share_inside(generated, real, neighbours)
    return precision, _share_inside(real, generated, neighbours)


def _share_inside(points: np.ndarray, centres: np.ndarray, neighbours: int) -> float:
    """Share of `points` within the ball of at least one of `centres`."""
    radii = []
    for distances in _squared_distances(centres, centres):
        # The nearest of all is the point itself.
        radii.append(np.partition(distances, neighbours)[:, neighbours])
    radii = np.concatenate(radii)
    inside = [(distances <= radii).any(axis=1) for distances in _squared_distances(points, centres)]
    return float(np.concatenate(inside).mean())


def _squared_distances(a: np.ndarray, b: np.ndarray) -> Iterator[np.ndarray]:
    """Squared distances of all pairs, [up to 1024, len(b)] at a time."""
    squares = np.square(b).sum(axis=1)
    for block in batches(a, _BLOCK):
        distances = np.square(block).sum(axis=1)[:, None] + squares - 2 * block @ b.T
        yield distances.clip(0)
