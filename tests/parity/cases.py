"""What is compared with the published code at full size, each case once.

A case makes the published file's tensors by `recipe`, writes them as a torch file, converts that
with the real converter, loads the result, and yields what Paddle computes beside what the
published code computed (`expected/*.npz`). `test_parity.py` asserts on them and `write_table.py`
writes them to docs/parity.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F

import paddle_sam
from paddle_sam.convert.convert import convert_file
from paddle_sam.metrics.features import (
    TORCHVISION,
    InceptionFeatures,
    clean_input,
    torchvision_input,
)
from paddle_sam.networks.face_heatmaps import masks_from_heatmaps
from paddle_sam.networks.sam import add_age_plane
from paddle_sam.networks.stylegan2_ops import mix_latents
from tests import DEVICE
from tests.parity import recipe

HERE = Path(__file__).resolve().parent
# Of the deviation of the expected values; the full 1024 path adds up 26 convolutions.
SINGLE, FULL = 1e-4, 1e-3


@dataclass(frozen=True)
class Comparison:
    """One quantity: its largest error, relative to the expected values' standard deviation."""

    network: str
    quantity: str
    error: float
    tolerance: float


def compare(network, quantity, found, expected, tolerance=SINGLE, deviation=None) -> Comparison:
    found = found.numpy() if isinstance(found, paddle.Tensor) else np.asarray(found)
    assert found.shape == expected.shape, (quantity, found.shape, expected.shape)
    difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    if expected.dtype == np.float16:
        # Stored rounded: every value within half a step of it is as right.
        difference = (difference - np.spacing(np.abs(expected)).astype(np.float64) / 2).clip(0)
    error = difference.max() / (deviation or expected.astype(np.float64).std())
    return Comparison(network, quantity, float(error), tolerance)


def expected(name: str) -> dict[str, np.ndarray]:
    with np.load(HERE / "expected" / f"{name}.npz") as archive:
        return dict(archive)


def convert_published(name: str, folder: Path, part: str | None = None) -> paddle.nn.Layer:
    """The network of a published checkpoint, its torch file made by the recipe and converted."""
    import torch

    source, target = folder / f"{name}.pt", folder / f"{name}.pdparams"
    torch.save(recipe.torch_checkpoint(name), source)
    convert_file(source, target)
    source.unlink()
    network = paddle_sam.load(target, part=part, device=DEVICE)
    target.unlink()
    return network


def tensor(array: np.ndarray) -> paddle.Tensor:
    return paddle.to_tensor(array.astype(np.float32))


def face_embedders(folder: Path) -> Iterator[Comparison]:
    files = {"ir_se50": "model_ir_se50", "curricularface_ir101": "CurricularFace_Backbone"}
    for name, file in files.items():
        want = expected(name)
        network = convert_published(file, folder)
        yield compare(name, "embedding [2, 512]", network(tensor(want["x"])), want["embedding"])


def dex_vgg(folder: Path) -> Iterator[Comparison]:
    want = expected("dex_vgg")
    network = convert_published("dex_age_classifier", folder)
    yield compare("dex_vgg", "logits [2, 101]", network(tensor(want["x"])), want["fc8"])
    # The two ages differ by a few hundredths of a year, about what float32 resolves at 50;
    # one year is the scale that means something.
    for images, quantity in (("x", "age"), ("x256", "age256")):
        found = network.age(tensor(want[images]))
        yield compare("dex_vgg", f"{quantity}, years", found, want[quantity], deviation=1.0)


def generator(folder: Path) -> Iterator[Comparison]:
    want = expected("stylegan2_generator_1024")
    network = convert_published("stylegan2-ffhq-config-f", folder)
    name = "stylegan2_generator_1024"
    w = network.style(tensor(want["z"]))
    yield compare(name, "mapping z -> w", w, want["w"])
    image = network([tensor(want["w_plus"])], input_is_latent=True, randomize_noise=False)
    pooled = F.adaptive_avg_pool2d(image, 256)
    yield compare(name, "synthesis, pooled to 256", pooled, want["image_pool256"], FULL)
    crop = image[:, :, 500:564, 300:364]
    yield compare(name, "synthesis, crop of 1024", crop, want["image_crop"], FULL)
    image, latent = network(
        [tensor(want["z"][:1])],
        truncation=0.7,
        truncation_latent=tensor(want["w"]).mean(0, keepdim=True),
        randomize_noise=False,
        return_latents=True,
    )
    pooled = F.adaptive_avg_pool2d(image, 256)
    yield compare(name, "truncation 0.7, pooled", pooled, want["trunc07_pool256"], FULL)
    yield compare(name, "truncation 0.7, w+", latent, want["trunc07_latent"])


def discriminator(folder: Path) -> Iterator[Comparison]:
    want = expected("stylegan2_discriminator_256")
    network = convert_published("stylegan2-discriminator-256", folder)
    name = "stylegan2_discriminator_256"
    yield compare(name, "scores of 4 images", network(tensor(want["x"])), want["score"])


def sam(folder: Path) -> Iterator[Comparison]:
    want = expected("sam_1024")
    network = convert_published("sam_ffhq_aging", folder)
    face = tensor(want["x"])
    inverted = network.invert(face)
    codes = inverted - network.latent_avg
    yield compare("sam_1024", "frozen pSp code", codes, want["pretrained_codes"])
    for index, age in enumerate(want["ages"]):
        x = add_age_plane(face, paddle.to_tensor([float(age)]))
        image, latent = network(x, resize=False, randomize_noise=False, return_latents=True)
        yield compare("sam_1024", f"w+ at age {age}", latent[0], want["latents"][index], FULL)
        pooled = F.adaptive_avg_pool2d(image, 256)[0]
        want_image = want["images_pool256"][index]
        yield compare("sam_1024", f"image at age {age}, pooled", pooled, want_image, FULL)
    crop = image[:, :, 500:564, 300:364]
    yield compare("sam_1024", "image at age 100, crop of 1024", crop, want["age100_crop"], FULL)
    yield from _style_mixing(network, face, inverted)


def _style_mixing(network, face, inverted) -> Iterator[Comparison]:
    want = expected("sam_style_mixing")
    x = add_age_plane(face, paddle.to_tensor([60.0]))
    inject = tensor(want["inject"])
    image, latent = network(
        x,
        latent_mask=[8, 9],
        inject_latent=inject,
        alpha=0.5,
        randomize_noise=False,
        return_latents=True,
    )
    yield compare("sam_style_mixing", "w+, codes 8 and 9 mixed", latent, want["latents"], FULL)
    yield compare("sam_style_mixing", "image", image, want["image256"], FULL)
    known = mix_latents(network.encode(x, inverted), [8, 9], inject, 0.5)
    yield compare("sam_style_mixing", "w+ from a known inversion", known, want["latents"], FULL)


def stargan2(folder: Path) -> Iterator[Comparison]:
    want = expected("starganv2_celeba")
    networks = _stargan2_networks(folder)
    x, y = tensor(want["x"]), paddle.to_tensor(want["y"])
    name = "starganv2_celeba"
    s_latent = networks["mapping_network"](tensor(want["z"]), y)
    yield compare(name, "mapping network z -> s", s_latent, want["s_latent"])
    s_ref = networks["style_encoder"](tensor(want["ref"]), y)
    yield compare(name, "style encoder", s_ref, want["s_ref"])
    yield compare(name, "discriminator, two domains", networks["discriminator"](x, y), want["d"])
    fan = networks["fan"]
    yield compare(name, "wing, 98 heat maps", fan(x), want["wing_heatmaps"])
    yield compare(name, "wing, landmarks, pixels", fan.landmarks(x), want["landmarks"], 1e-6, 1.0)
    masks = masks_from_heatmaps(_blobs(want["wing_centres"]))
    for index, mask in enumerate(masks):
        yield compare(name, f"mask {index + 1} of blobs", mask, want["masks"][index], deviation=1.0)
    fake = networks["generator"](x, s_latent)
    yield compare(name, "generator, no masks", fake, want["fake"])
    fake = networks["generator"](x, s_ref, masks)
    yield compare(name, "generator, high-pass skip", fake, want["fake_masked"])


def inception(folder: Path) -> Iterator[Comparison]:
    """Against pytorch-fid's network, and clean-fid's resizing before it."""
    want = expected("inception")
    network = convert_published("pt_inception-2015-12-05", folder)
    resized = np.stack([clean_input(image) for image in want["images"]]).transpose(0, 2, 3, 1)
    rows = resized[:, ::37] * 128 + 128
    yield compare("inception", "clean resizing, grey levels", rows, want["resized_rows"], 1e-4, 1.0)
    for resizing in ("clean", "legacy"):
        features = InceptionFeatures(network, "recipe", resizing)(want["images"])
        yield compare("inception", f"features, {resizing} resizing", features, want[resizing])


def inception_torchvision(folder: Path) -> Iterator[Comparison]:
    """Against torchvision 0.29.1's network and transforms, in StarGAN v2's order."""
    name, want = "inception, torchvision", expected("inception_torchvision")
    images = expected("inception")["images"]
    network = convert_published("inception_v3_google", folder)
    rows = np.stack([torchvision_input(image) for image in images]).transpose(0, 2, 3, 1)[:, ::37]
    yield compare(name, "resizing and normalisation", rows, want["input_rows"], 1e-5, 1.0)
    features = InceptionFeatures(network, "recipe", TORCHVISION)(images)
    yield compare(name, "features", features, want["features"])


def _stargan2_networks(folder: Path) -> dict[str, paddle.nn.Layer]:
    """The networks of a published training checkpoint, converted from a torch file."""
    import torch

    parts = ("generator", "mapping_network", "style_encoder", "discriminator", "wing")
    content = {
        "fan" if part == "wing" else part: {
            name: torch.from_numpy(np.array(value))
            for name, value in recipe.state_dict(f"starganv2_{part}").items()
        }
        for part in parts
    }
    torch.save(content, folder / "nets.ckpt")
    convert_file(folder / "nets.ckpt", folder / "nets.pdparams")
    return {
        part: paddle_sam.load(folder / "nets.pdparams", part=part, device=DEVICE)
        for part in content
    }


def _blobs(centres: np.ndarray, sigma: float = 5.0) -> paddle.Tensor:
    """Gaussian heat maps [N, 98, 256, 256] around centres [N, 98, 2], x and y."""
    y, x = np.ogrid[:256, :256]
    cx, cy = centres[..., 0, None, None], centres[..., 1, None, None]
    return tensor(np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * sigma**2)))


CASES = [
    *(face_embedders, dex_vgg, generator, discriminator, sam, stargan2),
    *(inception, inception_torchvision),
]
