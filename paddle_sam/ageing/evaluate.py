"""How good a network is: `scripts/evaluate.py ageing`, `calibration` and `reconstruction`.

Every face is rendered at every target age. The model's own age regressor and independent judges
read the results, face recognition compares them with the input, and the face rendered at its own
age is compared with the input too. Several faces are rendered together. The results of each are
kept as soon as they are measured, so the same command resumes an interrupted evaluation.

Calibration measures with a judge which age to ask the network for; reconstruction how well SAM or
pSp gives a face back from its codes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import paddle

from paddle_sam.ageing.eval_options import (
    AgeingEvaluationOptions,
    CalibrationOptions,
    ReconstructionOptions,
)
from paddle_sam.ageing.measures import Calibration, Measures
from paddle_sam.ageing.options import AgeingOptions, PhotoOptions, parse_ages
from paddle_sam.ageing.photos import Photo, Summary, counted, face_mask, find_inputs, read_photos
from paddle_sam.ageing.pipeline import EMBEDDED_DEFAULT, read_inverter
from paddle_sam.ageing.report_page import (
    JUDGED,
    FaceRecord,
    mean_and_deviation,
    summarise,
    write_page,
)
from paddle_sam.ageing.run import AgeingRun
from paddle_sam.core.device import resolve_device
from paddle_sam.core.files import sha256, write_json
from paddle_sam.core.folders import claim_folder
from paddle_sam.core.images import save_image, to_network, to_uint8
from paddle_sam.core.weights import WeightFile, find_weight, locate
from paddle_sam.errors import ConfigError, ImageError
from paddle_sam.faces.alignment import FaceCutter
from paddle_sam.faces.paste import paste
from paddle_sam.metrics.judges import AGE_JUDGE, Judges, open_judges, picture_of
from paddle_sam.metrics.pairs import AlignedIdentity, at_one_size, face_key, reconstruction
from paddle_sam.networks.image_features import LPIPS, load_lpips
from paddle_sam.networks.sam import SAM

_FILES = ("age_regressor_path", "identity_path", "aligned_identity_path", "lpips_path")
_EDITS = ("strength", "refine", "edit", "edit_level", "engine", "raw_age")
ASKED = np.arange(0.0, 101.0, 10.0)


def evaluate_ageing(config: AgeingEvaluationOptions) -> dict:
    """Measure a network on photographs; write `report.json` and `report.html` to `exp_dir`.

    Returns:
        what `report.json` holds, without the single faces.
    """
    if not config.age_regressor_path and config.checkpoint_path:
        raise ConfigError(
            "--age_regressor_path: name the age regressor that fits this model; for the published"
            " one that is the converted dex_age_classifier.pth"
        )
    folder = Path(config.exp_dir)
    evaluation = AgeingEvaluation(config)
    claim_folder(folder, evaluation.facts, "--exp_dir", "results")
    faces = evaluation.measure_all(folder / "faces")
    if not faces:
        raise ImageError(f"{config.data_path}: found no face to evaluate on")
    records = [
        FaceRecord(name, **json.loads(file.read_text(encoding="utf-8"))) for name, file in faces
    ]
    strips = None if config.no_pictures else [file.with_suffix(".png") for _, file in faces]
    report = {
        "settings": dataclasses.asdict(config),
        "made_from": evaluation.facts,
        **summarise(records),
        "failed": evaluation.run.summary.failures,
    }
    write_json(folder / "report.json", report | {"faces": list(map(dataclasses.asdict, records))})
    write_page(folder / "report.html", report, records, strips)
    print(f"report: {folder / 'report.html'}")
    return report


class AgeingEvaluation:
    """Ages faces and measures the results."""

    def __init__(self, config: AgeingEvaluationOptions):
        self.config = config
        self.targets = parse_ages(config.target_age)
        self.run = AgeingRun(config)
        files = (config.checkpoint_path, config.age_regressor_path, config.identity_path)
        crop = self.run.pipeline.crop
        self._measures = Measures.from_files(crop, *files, config.device, judges=open_judges())
        self._lpips = load_lpips(config.lpips_path)
        path = config.aligned_identity_path
        self._aligned_identity = AlignedIdentity(path, config.device) if path else None
        # Everything but the faces that the results depend on.
        files = {name: getattr(config, name) for name in (*_FILES, "directions", "generator")}
        files["model"] = self.run.pipeline.source
        files["age_regressor_path"] = config.age_regressor_path or find_weight("age_mini")
        self.facts = {
            "targets": self.targets,
            **{name: getattr(config, name) for name in _EDITS},
            **{name: sha256(locate(path)) for name, path in files.items() if path},
        }

    def measure_all(self, folder: Path) -> list[tuple[str, Path]]:
        """Measure the faces of all photographs, except those measured before.

        Args:
            folder: where the results are kept.

        Returns:
            for every face its name and the JSON file of its measures: `FaceRecord` without the
            name. Beside it, unless `--no_pictures` is given, a PNG shows input, results and
            reconstruction in a row.
        """
        named: list[tuple[str, Path]] = []

        def unmeasured() -> Iterator[Photo]:
            """Yield each face to be measured as a photograph of its own."""
            for photo in self.run.photos():
                for name, alone in photo.alone():
                    file = self._file(alone, folder)
                    named.append((name, file))
                    if not self._is_done(file):
                        yield alone

        for group in self.run.groups(unmeasured(), len(self.targets) + 1):
            self._measure(group, folder)
        return named

    def _file(self, face: Photo, folder: Path) -> Path:
        mask = face_mask(face.pixels, face.faces[0], face.path) if self.config.refine else None
        return folder / f"{face_key(face.faces[0].image, face.codes, mask)}.json"

    def _is_done(self, file: Path) -> bool:
        return file.is_file() and (self.config.no_pictures or file.with_suffix(".png").is_file())

    def _measure(self, faces: Sequence[Photo], folder: Path) -> None:
        """Render faces together; measure and keep each."""
        own = [self._measures.input_age(face.crops[0]) for face in faces]
        ages = [[*self.targets, age] for age in own]
        crops = np.concatenate([face.crops for face in faces])
        inverted = paddle.concat([self.run.invert(face) for face in faces])
        rendered = self.run.pipeline.age(
            crops, ages, True, self.run.batch_size, inverted, self.run.edit
        )
        for face, age, images in zip(faces, own, rendered, strict=True):
            file, crop, recovered = self._file(face, folder), face.crops[0], images[-1]
            if not self.config.no_pictures:
                row = np.concatenate([at_one_size(crop, recovered)[0], *images], axis=1)
                save_image(file.with_suffix(".png"), row)
            # Last, so that a file that exists is complete.
            picture = picture_of(face.faces[0], face.pixels)
            write_json(file, self._numbers(crop, age, images[:-1], recovered, picture))

    def _numbers(
        self,
        crop: np.ndarray,
        age: float,
        results: np.ndarray,
        recovered: np.ndarray,
        picture: np.ndarray,
    ) -> dict:
        """Return what `FaceRecord` holds of a face beside its name."""
        measured = self._measures(crop, results, picture)
        identity = {}
        if "identity" in measured:
            identity["face region"] = measured["identity"].tolist()
        if self._aligned_identity:
            identity["five points"] = self._aligned_identity(crop, results)
        return {
            "input_age": age,
            "targets": self.targets,
            "measured": measured["measured_age"].tolist(),
            "identity": identity,
            "reconstruction": reconstruction(self._lpips, crop, recovered),
            "judged": {
                name: [None if np.isnan(value) else float(value) for value in measured[name]]
                for name in JUDGED
                if name in measured
            },
        }


def calibrate(options: CalibrationOptions) -> dict:
    """Have a judge read the model's own pictures of photographs at the ages 0, 10, ..., 100.

    Returns:
        the curve, and how many faces were read.
    """
    judges = Judges()
    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(PhotoOptions)}
    run = AgeingRun(AgeingOptions(**given, keep="0", raw_age=True))
    rows = []
    for result in run.aged_photos(ASKED.tolist()):
        for patches in result.patches:
            pictures = (paste(result.photo.pixels, [patch]) for patch in patches)
            readings = [judges(picture) for picture in pictures]
            rows.append([np.nan if one is None else one.age for one in readings])
    if not rows or np.isnan(rows).all(axis=0).any():
        raise ImageError(f"{options.data_path or 'portrait'}: the judge found no face to read")
    curve = Calibration.fitted(ASKED, np.nanmean(rows, axis=0), AGE_JUDGE)
    for asked, seen in zip(curve.asked, curve.seen, strict=True):
        print(f"asked for {asked:3.0f}, looks {seen:4.1f}")
    if options.output:
        file = WeightFile.read(options.checkpoint_path or find_weight(EMBEDDED_DEFAULT))
        dataclasses.replace(file, calibration=curve.entry()).write(Path(options.output))
        print(f"weights with the curve: {options.output}")
    return {"faces": len(rows), **curve.entry()}


def evaluate_reconstruction(config: ReconstructionOptions) -> dict:
    """Measure a network on photographs; write `report.json` to `exp_dir`.

    Returns:
        what `report.json` holds, without the single faces.
    """
    inputs = find_inputs(config)
    resolve_device(config.device)
    path = config.checkpoint_path or find_weight(EMBEDDED_DEFAULT)
    network, crop, _ = read_inverter(Path(path))
    if not network.encodes_photographs and network.start != "encoded_w_plus":
        raise ConfigError(
            f"{path}: its encoder takes {network.encoder.in_channels} channels and starts from"
            f" {network.start}, so that it has no code for a photograph itself"
        )
    region = Measures.from_files(
        crop, str(path), identity_path=config.identity_path, device=config.device
    )
    aligned = config.aligned_identity_path
    aligned = AlignedIdentity(aligned, config.device) if aligned else None
    lpips = load_lpips(config.lpips_path)
    folder = Path(config.exp_dir)
    files = {"model": path} | {name: getattr(config, name) for name in _FILES[1:]}
    facts = {name: sha256(locate(file)) for name, file in files.items() if file}
    claim_folder(folder, facts, "--exp_dir", "results")
    summary, records = Summary(), []
    photos = read_photos(config, inputs, FaceCutter(crop))
    for photo in counted(photos, summary, len(inputs), config.results):
        for name, face in photo.alone():
            file = folder / "faces" / f"{face_key(face.crops[0])}.json"
            if not file.is_file():
                measured = _reconstructed(network, face.crops[0], lpips, region, aligned)
                write_json(file, measured)
            records.append({"name": name, **json.loads(file.read_text(encoding="utf-8"))})
    if not records:
        raise ImageError(f"{config.data_path}: found no face to evaluate on")
    report = {
        "settings": dataclasses.asdict(config),
        "number_of_faces": len(records),
        **{name: _summary([one[name] for one in records]) for name in records[0] if name != "name"},
        "failed": summary.failures,
    }
    write_json(folder / "report.json", report | {"faces": records})
    return report


def _reconstructed(
    network: SAM,
    crop: np.ndarray,
    lpips: LPIPS,
    region: Measures,
    aligned: AlignedIdentity | None,
) -> dict[str, float | None]:
    """Invert a crop, uint8 [S, S, 3], and compare what its codes render with it."""
    with paddle.no_grad():
        x = paddle.to_tensor(to_network(crop))
        codes = network.encode(x) if network.encodes_photographs else network.invert(x)
        image = to_uint8(network.decode(codes, randomize_noise=False)[0])
    measured = reconstruction(lpips, crop, image[0])
    if "identity" in (found := region(crop, image)):
        measured["identity, face region"] = found["identity"].item()
    if aligned:
        measured["identity, five points"] = aligned(crop, image)[0]
    return measured


def _summary(values: list[float | None]) -> dict:
    found = [value for value in values if value is not None]
    measured = mean_and_deviation(found) if found else {"mean": None, "deviation": None}
    return {**measured, "number": len(found)}
