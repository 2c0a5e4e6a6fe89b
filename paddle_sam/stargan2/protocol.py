"""StarGAN v2's protocol (Choi et al. 2020, section 4): how real and how varied translations are.

Every validation image of every domain is translated into every other domain several times, with
styles of random latents and of random references. FID compares all translations into a domain
with the training images of that domain; diversity is the mean LPIPS between the translations of
one image. Both are reported for each pair of domains and as the mean over pairs.

What has been made is kept, so the same command resumes a run that was interrupted. Nothing depends
on the sizes of batches.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import paddle
from tqdm import tqdm

from paddle_sam.core.device import resolve_device
from paddle_sam.core.files import read_text, sha256
from paddle_sam.core.folders import claim_folder
from paddle_sam.core.images import read_image, save_image, to_network, to_uint8
from paddle_sam.core.processes import batches
from paddle_sam.core.weights import locate
from paddle_sam.errors import ConfigError
from paddle_sam.imagesets.archive import ImageSource, content_digest
from paddle_sam.imagesets.loader import to_device
from paddle_sam.metrics.features import NEIGHBOURS, FeatureStore, open_store
from paddle_sam.metrics.pairs import diversity
from paddle_sam.metrics.sets import feature_store, report, set_measures
from paddle_sam.networks.image_features import load_lpips
from paddle_sam.stargan2.domains import Domains, read_all
from paddle_sam.stargan2.options import StarGAN2EvaluationOptions, StarGAN2Options
from paddle_sam.stargan2.system import StarGAN2

GUIDES = ("latent", "reference")
_LATENTS, _REFERENCES = 20, 21  # streams of random numbers


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What is made of each validation image.

    outputs: translations of each image into each domain.
    batch_size: images at a time; changes speed and memory only.
    seed: of latents and of the choice of references.
    max_images: validation images of each domain; 0 for all.
    """

    outputs: int = 10
    batch_size: int = 32
    seed: int = 0
    max_images: int = 0


@dataclasses.dataclass(eq=False)
class TranslationEvaluation:
    """Judges one network on one data set.

    Attributes:
        system: the network.
        model_id: what tells its weights from others.
        train, val: the domains, of the same names.
        folder: where translations and results are kept.
        diversities: of translations of one image, from `diversity_store`; None leaves LPIPS out.
        features: of FID, KID, precision and recall; None leaves them out.
        protocol: what is made.
        keep_features: also keep what is measured of translations, to resume an evaluation.
        groups: for each domain the groups of each of its validation images, to compare their LPIPS.

    Raises:
        ConfigError: the domains do not fit each other or the network, or the folder holds the
            results of something else.
    """

    system: StarGAN2
    model_id: str
    train: Domains
    val: Domains
    folder: Path
    diversities: FeatureStore | None
    features: FeatureStore | None
    protocol: Protocol = Protocol()
    keep_features: bool = True
    groups: Sequence[Sequence[Sequence[str]]] | None = None

    def __post_init__(self):
        self.val.expect_names_of(self.train)
        self.val.expect(self.system.num_domains)
        self.sources = [files[: self.protocol.max_images or None] for files in self.val.files]
        facts = {
            "model": self.model_id,
            "outputs": self.protocol.outputs,
            "seed": self.protocol.seed,
            "images": [_content_id(paths) for paths in self.sources],
            "references": [_content_id(paths) for paths in self.val.files],
        }
        claim_folder(self.folder, facts, "--eval_dir", "translations")

    def run(self) -> dict[str, dict[str, dict[str, float]]]:
        """Translate and judge: {guide: {measure: {`cat2dog`: value, ..., `mean`: value}}}.

        With groups also {`groups`: {guide: {`cat2dog`: {group of the source: see `of_groups`}}}}.
        """
        numbers = range(len(self.val))
        pairs = [(source, target) for target in numbers for source in numbers if source != target]
        results, by_group = {}, {}
        for guide in GUIDES:
            tasks = {self._name(*pair): self._task(guide, *pair) for pair in pairs}
            if self.groups is not None:
                by_group[guide] = {name: found.pop("groups") for name, found in tasks.items()}
            results[guide] = _by_measure(tasks)
        return results if self.groups is None else results | {"groups": by_group}

    def _name(self, source: int, target: int) -> str:
        return f"{self.val.names[source]}2{self.val.names[target]}"

    def _task(self, guide: str, source: int, target: int) -> dict[str, Any]:
        """Every measure of one pair of domains."""
        name = self._name(source, target)
        folder = self.folder / guide / name
        made = self._outputs(folder, guide, source, target)
        found: dict[str, Any] = {}
        if self.diversities is not None:
            values = self.diversities.of_made(
                [_content_id(paths) for paths in made],
                lambda chosen: [np.stack([read_image(p) for p in made[i]]) for i in chosen],
                f"{guide} {name}: LPIPS",
                self.keep_features,
            )
            found["LPIPS"] = float(values.mean())
            if self.groups is not None:
                found["groups"] = of_groups(values, self.groups[source])
        if self.features is not None:
            real = self.features.of_files(self.train.files[target], f"{name}: real")
            files = [path for paths in made for path in paths]
            fake = self.features.of_files(files, f"{guide} {name}: made", self.keep_features)
            found |= set_measures(real, fake)
        return found

    def _outputs(self, folder: Path, guide: str, source: int, target: int) -> list[list[Path]]:
        """Make the translations that are missing; return lists of files by source image."""
        outputs = self.protocol.outputs
        files = [
            [folder / f"{index:04d}_{output:02d}.png" for output in range(1, outputs + 1)]
            for index in range(1, len(self.sources[source]) + 1)
        ]
        missing = [
            index for index, paths in enumerate(files) if not all(path.exists() for path in paths)
        ]
        with tqdm(total=len(missing), desc=f"{guide} {folder.name}", disable=None) as progress:
            for chosen in batches(missing, self.protocol.batch_size):
                self._translate(guide, source, target, chosen, files)
                progress.update(len(chosen))
        return files

    @paddle.no_grad()
    def _translate(self, guide, source, target, chosen: Sequence[int], files) -> None:
        size = self.system.img_size
        paths = [self.sources[source][index] for index in chosen]
        images = to_device(read_all(paths, size))
        masks = self.system.masks(images)
        for output in range(self.protocol.outputs):
            keys = [(source, target, index, output) for index in chosen]
            if guide == "latent":
                latent_dim = self.system.mapping_network.latent_dim
                z = np.stack([self._rng(_LATENTS, k).standard_normal(latent_dim) for k in keys])
                styles = self.system.latent_styles(z.astype(np.float32), target)
            else:
                references = self.val.files[target]
                drawn = [int(self._rng(_REFERENCES, k).integers(len(references))) for k in keys]
                domains = np.full(len(keys), target)
                pictures = read_all([references[index] for index in drawn], size)
                styles = self.system.reference_styles(pictures, domains)
            made = to_uint8(self.system.generator(images, styles, masks))
            for index, picture in zip(chosen, made, strict=True):
                save_image(files[index][output], picture)

    def _rng(self, stream: int, key: tuple[int, ...]) -> np.random.Generator:
        return np.random.default_rng((self.protocol.seed, stream, *key))


def evaluate_stargan2(config: StarGAN2EvaluationOptions) -> dict:
    """Run the protocol as the options say; a second call resumes one that was interrupted.

    Raises:
        PaddleSamError: an option is missing, or a file cannot be used.
    """
    start = time.monotonic()
    path = config.weight_file()
    train = Domains(config.train_img_dir, "train_img_dir")
    val = Domains(config.val_img_dir, "val_img_dir")
    groups = read_groups(config.groups, val) if config.groups else None
    resolve_device(config.device)
    system = StarGAN2.from_file(path, config.wing_path, config.device)
    config.expect_numbers(path, system.numbers)
    evaluation = TranslationEvaluation(
        system,
        "".join(sha256(locate(file)) for file in (path, config.wing_path) if file),
        train,
        val,
        Path(config.eval_dir),
        diversity_store(config.lpips_path, Path(config.cache_dir)),
        None if config.no_fid else feature_store(config),
        Protocol(config.num_outs_per_domain, config.val_batch_size, config.seed, config.max_images),
        groups=groups,
    )
    results: dict = evaluation.run()
    return report(config, results | {"seconds": round(time.monotonic() - start, 1)})


def translation_judge(
    options: StarGAN2Options, train: Domains, val: Domains
) -> Callable[[StarGAN2], dict[str, float]]:
    """Return what measures a network in training on the run's validation images.

    The measures are those of `scripts/evaluate.py stargan2`, on fewer images, as means over all
    pairs of domains: `latent/FID`, `reference/LPIPS` and so on. The mean FID over latents and
    references is the `loss` by which the best model is chosen. Translations are not kept.

    Raises:
        PaddleSamError: weights are missing, a domain is too small for a measure, or a training
            image cannot be read.
    """
    diversities = None if options.no_lpips else diversity_store(options.lpips_path, None)
    features = None if options.no_fid or len(val) < 2 else _real_features(options, train, val)
    protocol = Protocol(
        options.num_outs_per_domain, options.val_batch_size, options.seed, options.max_val_images
    )

    def judge(system: StarGAN2) -> dict[str, float]:
        if len(val) < 2 or (diversities is None and features is None):
            return {}
        with tempfile.TemporaryDirectory() as folder:
            found = TranslationEvaluation(
                *(system, "in training", train, val, Path(folder), diversities, features, protocol),
                keep_features=False,
            ).run()
        measures = {
            f"{guide}/{name}": values["mean"]
            for guide, by_name in found.items()
            for name, values in by_name.items()
        }
        if features is not None:
            measures["loss"] = float(np.mean([measures[f"{guide}/FID"] for guide in found]))
        return measures

    return judge


def _real_features(options: StarGAN2Options, train: Domains, val: Domains) -> FeatureStore:
    """Return the features of all training images.

    Now, not at the first validation, so that an unreadable image is known at once.
    """
    shown = min(len(files[: options.max_val_images or None]) for files in val.files)
    real, made = min(map(len, train.files)), options.num_outs_per_domain * shown
    if min(real, made) <= NEIGHBOURS:
        raise ConfigError(
            f"train_img_dir, val_img_dir: of a domain there are {real} training images and {made}"
            f" translations, expected more than {NEIGHBOURS} of each for precision and recall; give"
            " --no_fid"
        )
    store = open_store(options.inception_path, Path(options.exp_dir) / "features", options.device)
    for name, files in zip(train.names, train.files, strict=True):
        store.of_files(files, f"{name}: real")
    return store


def read_groups(path: str | os.PathLike, domains: Domains) -> list[list[list[str]]]:
    """The groups of each image of folders of domains: a CSV file of `female/1.jpg,dark hair,left`.

    Raises:
        ConfigError: the file cannot be read, or says nothing of an image.
    """
    try:
        rows = list(csv.reader(read_text(path, "--groups").splitlines()))
    except csv.Error as error:
        raise ConfigError(f"--groups: {path} cannot be read as a table ({error})") from error
    stripped = [[part.strip() for part in row] for row in rows]
    named = {row[0]: [part for part in row[1:] if part] for row in stripped if any(row[1:])}
    found = []
    for name, sources in zip(domains.names, domains.files, strict=True):
        keys = [f"{name}/{PurePath(str(source)).name}" for source in sources]
        if missing := [key for key in keys if key not in named]:
            raise ConfigError(
                f"--groups: {path}: expected a row DOMAIN/FILE,GROUP for each validation image,"
                f" found none for {missing[0]}"
            )
        found.append([named[key] for key in keys])
    return found


def of_groups(
    values: np.ndarray, groups: Sequence[Sequence[str]]
) -> dict[str, dict[str, float | None]]:
    """Mean of `values` [N, 1] in each group, by its name; `groups` may be longer.

    `LPIPS` is the mean over the group's `images`, `error` its standard error (None for a single
    image): groups that differ by less than twice that do not differ.
    """
    groups = groups[: len(values)]
    found = {}
    for group in sorted({name for names in groups for name in names}):
        members = values[[group in names for names in groups]]
        number = len(members)
        error = float(members.std(ddof=1) / np.sqrt(number)) if number > 1 else None
        found[group] = {"LPIPS": float(members.mean()), "error": error, "images": number}
    return found


def diversity_store(lpips_path: str | os.PathLike, folder: Path | None) -> FeatureStore:
    """What measures LPIPS diversities, [N, 1] of N groups of images, and keeps them in `folder`.

    Raises:
        CheckpointError: the weights are missing, damaged, or no LPIPS.
    """
    lpips = load_lpips(lpips_path)

    def measure(groups: Sequence[np.ndarray]) -> np.ndarray:
        return np.array([[diversity(lpips, to_network(group))] for group in groups])

    settings = {"measure": "LPIPS diversity", "weights": sha256(locate(lpips_path))}
    return FeatureStore(folder, measure, settings)


def _by_measure(tasks: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Turn {task: {measure: value}} into {measure: {task: value}}, with the means."""
    measures = next(iter(tasks.values()))
    found = {m: {name: values[m] for name, values in tasks.items()} for m in measures}
    return {
        m: values | {"mean": float(np.mean(list(values.values())))} for m, values in found.items()
    }


def _content_id(images: Sequence[ImageSource]) -> str:
    """What tells the contents of these images, in their order, from others."""
    return hashlib.sha256("".join(map(content_digest, images)).encode()).hexdigest()
