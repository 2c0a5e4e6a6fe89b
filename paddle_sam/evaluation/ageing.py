"""How well a network ages faces: `scripts/evaluate.py ageing`.

Every face is rendered at every target age and judged: by an age regressor, by face recognition
and, rendered at the age it is read as, by how well it comes back. The results of a face are kept
as soon as it is done, so an evaluation that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from paddle_sam.common.checks import ConfigError, ImageError
from paddle_sam.common.files import claim_folder, sha256, write_json
from paddle_sam.common.images import save_image
from paddle_sam.common.weights import find_weight
from paddle_sam.configs.evaluate import AgeingEvaluationConfig
from paddle_sam.configs.inference import parse_ages
from paddle_sam.evaluation.ageing_page import write_page
from paddle_sam.evaluation.ageing_summary import FaceRecord, summarise
from paddle_sam.evaluation.faces import AlignedIdentity, at_one_size, face_key, reconstruction
from paddle_sam.inference.ageing import Ageing
from paddle_sam.inference.measures import Measures
from paddle_sam.inference.photos import Photo, Summary
from paddle_sam.losses.lpips import load_lpips

_FILES = ("age_regressor_path", "identity_path", "aligned_identity_path", "lpips_path")
_EDITS = ("strength", "refine", "edit", "edit_level", "engine")


def evaluate_ageing(config: AgeingEvaluationConfig) -> dict:
    """Judge a network on photographs; writes `report.json` and `report.html` to `exp_dir`.

    Returns:
        what `report.json` holds, less the single faces.

    Raises:
        PaddleSamError: an option is missing, a file cannot be used, or no face was found.
    """
    if not config.age_regressor_path and config.checkpoint_path:
        raise ConfigError(
            "--age_regressor_path: name the age regressor that fits this model; for the published"
            " one that is the converted dex_age_classifier.pth"
        )
    folder = Path(config.exp_dir)
    judge = AgeingJudge(config)
    claim_folder(folder, judge.facts, "exp_dir", "results")
    photos = Summary()
    records, strips = [], []
    for photo in judge.ageing.photos(photos):
        for number, name in enumerate(photo.face_names()):
            record, strip = judge.of_face(photo, number, name.as_posix(), folder / "faces")
            records.append(record)
            strips.append(strip)
    if not records:
        raise ImageError(f"{config.data_path}: found no face to evaluate on")
    report = {
        "settings": dataclasses.asdict(config),
        "made_from": judge.facts,
        **summarise(records),
        "failed": photos.failures,
    }
    write_json(folder / "report.json", report | {"faces": list(map(dataclasses.asdict, records))})
    write_page(folder / "report.html", report, records, strips)
    print(f"report: {folder / 'report.html'}")
    return report


class AgeingJudge:
    """Ages single faces and measures the results.

    Raises:
        PaddleSamError: the model, a judge or an option cannot be used.
    """

    def __init__(self, config: AgeingEvaluationConfig):
        self.config = config
        self.targets = parse_ages(config.target_age)
        self.ageing = Ageing(config)
        self._measures = Measures(config, self.ageing.pipeline.crop)
        self._lpips = load_lpips(config.lpips_path)
        path = config.aligned_identity_path
        self._aligned_identity = AlignedIdentity(path, config.device) if path else None
        # Everything but the faces that the results depend on.
        files = {name: getattr(config, name) for name in (*_FILES, "directions")}
        files["model"] = self.ageing.pipeline.source
        files["age_regressor_path"] = config.age_regressor_path or find_weight("age_mini")
        self.facts = {
            "targets": self.targets,
            **{name: getattr(config, name) for name in _EDITS},
            **{name: sha256(path) for name, path in files.items() if path},
        }

    def of_face(
        self, photo: Photo, number: int, name: str, folder: Path
    ) -> tuple[FaceRecord, Path | None]:
        """Measure a face of a photograph, or find again in `folder` what was measured before.

        Returns:
            the record, and the picture that shows input, results and reconstruction in a row;
            None with `--no_pictures`.
        """
        codes = None if photo.codes is None else photo.codes[number : number + 1]
        file = folder / f"{face_key(photo.faces[number].image, codes)}.json"
        picture = file.with_suffix(".png")
        pictures = not self.config.no_pictures
        if not (file.is_file() and (picture.is_file() or not pictures)):
            face = dataclasses.replace(photo, faces=[photo.faces[number]], codes=codes)
            measured, row = self._measure(face)
            if pictures:
                save_image(picture, row)
            write_json(file, measured)  # last: what is there is complete
        record = FaceRecord(name, **json.loads(file.read_text(encoding="utf-8")))
        return record, picture if pictures else None

    def _measure(self, face: Photo) -> tuple[dict, np.ndarray]:
        crop = face.crops[0]
        input_age = self._measures.input_age(crop)
        ages = [*self.targets, input_age]
        ((_, images),) = self.ageing.age([face], ages, resize_outputs=True)
        *results, recovered = images[0]
        results = np.stack(results)
        measured = self._measures(crop, results)
        identity = {}
        if "identity" in measured:
            identity["face region"] = measured["identity"].tolist()
        if self._aligned_identity:
            identity["five points"] = self._aligned_identity(crop, results)
        row = np.concatenate([at_one_size(crop, recovered)[0], *images[0]], axis=1)
        return {
            "input_age": input_age,
            "targets": self.targets,
            "measured": measured["measured_age"].tolist(),
            "identity": identity,
            "reconstruction": reconstruction(self._lpips, crop, recovered),
        }, row
