"""A benchmark that others can repeat: `scripts/evaluate.py benchmark`.

Faces are aged as a protocol says, and open judges that had no part in the training read the
results at 256 pixels. Nothing is trimmed, and results in which no face is found count as failures.
What is measured is kept face by face, so the same command resumes an interrupted benchmark.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import paddle
from tqdm import tqdm

from paddle_sam.ageing.benchmark_summary import (
    REAL_READINGS,
    REAL_SOURCE,
    Result,
    dial_table,
    impostor_threshold,
    summarise,
    tables_for,
)
from paddle_sam.ageing.eval_options import DIALS, BenchmarkOptions, DialOptions
from paddle_sam.ageing.measures import Measures
from paddle_sam.ageing.photos import Photo, face_mask, find_inputs, read_photos
from paddle_sam.ageing.protocols import (
    NEEDS,
    FaceLabel,
    Subject,
    plan,
    read_labels,
    reference_reading,
)
from paddle_sam.ageing.report_page import JUDGES, render
from paddle_sam.ageing.run import AgeingRun
from paddle_sam.core.files import atomic_path, read_arrays, sha256, write_arrays, write_json
from paddle_sam.core.folders import claim_folder
from paddle_sam.core.images import resize, save_image, to_network
from paddle_sam.core.weights import find_weight, locate
from paddle_sam.errors import ImageError
from paddle_sam.faces.alignment import AlignedFace
from paddle_sam.metrics.features import AlexFeatures, kid
from paddle_sam.metrics.judges import JUDGED_SIZE, SAME_PERSON, Judges, as_judged, picture_of
from paddle_sam.metrics.pairs import face_key, perceptual_distance
from paddle_sam.metrics.quality import face_area, niqe, psnr_outside, sharpness
from paddle_sam.networks.image_features import load_lpips


def run_benchmark(options: BenchmarkOptions) -> dict:
    """Run a protocol; write `benchmark.json` and `benchmark.html` to `exp_dir`.

    Returns:
        what `benchmark.json` holds, without the single results.
    """
    folder = Path(options.exp_dir)
    benchmark = Benchmark(options)
    claim_folder(folder, benchmark.facts, "--exp_dir", "results")
    subjects = benchmark.subjects
    tasks = plan(options.protocol, subjects)
    if not tasks:
        raise ImageError(
            f"{options.data_path}: found no face that the protocol {options.protocol} can use"
            f" among {len(subjects)}; it needs {NEEDS[options.protocol]}"
        )
    results, photographs, made = benchmark.measure_all(tasks, folder / "faces")
    strict, strict_source = impostor_threshold(
        [subject.reading.descriptor for subject in subjects],
        [subject.person for subject in subjects],
    )
    real = benchmark.real_readings()
    failed = benchmark.run.summary.failures
    missed = len(failed) * max(len(targets) for _, targets in tasks)
    report = {
        "settings": dataclasses.asdict(options),
        "protocol": options.protocol,
        "judges": JUDGES,
        "thresholds": {
            "same_person": SAME_PERSON,
            "strict": strict,
            "strict_from": strict_source,
        },
        "real_faces": real,
        **summarise(results, missed, strict, real["readings"]),
        "KID": benchmark.kid(photographs, made),
        "failed": failed,
    }
    whole = report | {"all_results": [dataclasses.asdict(result) for result in results]}
    write_json(folder / "benchmark.json", whole)
    render(
        "benchmark.html.j2",
        folder / "benchmark.html",
        report=report,
        model=Path(options.checkpoint_path or "the embedded model").name,
        published=tables_for(options.protocol),
    )
    print(f"benchmark: {folder / 'benchmark.html'}")
    return report


def compare_dials(options: DialOptions) -> dict:
    """Run a protocol with each setting of `DIALS`; write their table, `dial.md`, to `exp_dir`.

    Returns:
        of each setting what `run_benchmark` returns.
    """
    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    folder, reports = Path(options.exp_dir), {}
    for number, (name, keep, raw_age) in enumerate(DIALS, 1):
        print(f"{number} of {len(DIALS)}: {name}")
        own = {"keep": keep, "raw_age": raw_age, "exp_dir": str(folder / str(number))}
        reports[name] = run_benchmark(BenchmarkOptions(**(given | own)))
    table = dial_table(reports)
    with atomic_path(folder / "dial.md") as temporary:
        temporary.write_text(table, encoding="utf-8")
    print(table)
    return {**reports, "failed": [name for one in reports.values() for name in one["failed"]]}


# Options that no result depends on, or only by the content of a file.
_NO_MATTER = (
    *("data_path", "checkpoint_path", "exp_dir", "n_images", "test_batch_size", "test_workers"),
    *("device", "latent", "directions", "labels", "real_path", "age_regressor_path", "lpips_path"),
)
_AGAIN = "delete it and its .json to have this face measured again"
_FEWEST_REAL = 50  # faces with known ages that make a line of their own


class Benchmark:
    """Ages subjects and has the results read."""

    def __init__(self, options: BenchmarkOptions):
        self.options = options
        self._judges = Judges()
        self.run = AgeingRun(options)
        self._pipeline = self.run.pipeline
        self._label_of = read_labels(options.labels, Path(options.data_path))
        files = (options.checkpoint_path, options.age_regressor_path)
        self._own = Measures.from_files(self._pipeline.crop, *files, device=options.device)
        self._lpips = load_lpips(options.lpips_path)
        self._features = AlexFeatures(self._lpips, 224)
        files = {
            "model": self._pipeline.source,
            "lpips": options.lpips_path,
            "directions": options.directions,
            "age_regressor": options.age_regressor_path,
            **{name: find_weight(name) for name in ("judge_age", "judge_gender", "judge_identity")},
        }
        # Everything but the faces that the results depend on.
        settings = dataclasses.asdict(options)
        self.facts = {
            **{name: value for name, value in settings.items() if name not in _NO_MATTER},
            **{name: sha256(locate(path)) for name, path in files.items() if path},
        }

    @functools.cached_property
    def subjects(self) -> list[Subject]:
        """The faces of the photographs; one that no judge can see is noted as a failure."""
        found = []
        for photo in self.run.photos():
            for name, alone in photo.alone():
                subject = self._subject(alone, name, self._label_of)
                if subject is None:
                    reason = f"{name}: the judges find no face in the crop"
                    self.run.summary.failures[name] = reason
                else:
                    found.append(subject)
        if not found:
            raise ImageError(f"{self.options.data_path}: found no face to evaluate on")
        return found

    def _subject(
        self, photo: Photo, name: str, label_of: Callable[[Path], FaceLabel]
    ) -> Subject | None:
        face = photo.faces[0]
        picture = resize(picture_of(face, photo.pixels), JUDGED_SIZE)
        reading = self._judges(picture)
        if reading is None:
            return None
        label = FaceLabel() if photo.path is None else label_of(photo.path)
        own = label.age if label.age is not None else self._own.input_age(face.image)
        return Subject(photo, name, label, picture, reading, reading.age if own is None else own)

    def measure_all(
        self, tasks: Sequence[tuple[Subject, list[float]]], folder: Path
    ) -> tuple[list[Result], np.ndarray, np.ndarray]:
        """Age and measure every subject, except those measured before.

        Returns:
            the results, and the features for KID of photographs [F, D] and of results [N, D].
        """
        results, features = [], []
        for subject, targets in tqdm(tasks, desc="benchmark", unit="face", disable=None):
            file = folder / f"{self._key(subject, targets)}.json"
            if not file.is_file():
                pictures, rows = self._measure(subject, targets)
                pictures = [subject.picture, *pictures]
                save_image(file.with_suffix(".png"), np.concatenate(pictures, axis=1))
                write_arrays(file.with_suffix(".npz"), {"features": self._features(pictures)})
                # Last, so that a file that exists is complete.
                write_json(file, {"results": [dataclasses.asdict(row) for row in rows]})
            names = {"photo": subject.name, "person": subject.person}  # may have changed since
            kept = json.loads(file.read_text(encoding="utf-8"))["results"]
            results += [Result(**(row | names)) for row in kept]
            features.append(read_arrays(file.with_suffix(".npz"), _AGAIN)["features"])
        photographs = np.stack([found[0] for found in features])
        return results, photographs, np.concatenate([found[1:] for found in features])

    def _key(self, subject: Subject, targets: list[float]) -> str:
        others = self.subjects if self.options.protocol == "reference" else []
        others = [s.picture for s in others if s.person == subject.person]
        label = json.dumps([subject.own_age, subject.gender, subject.label.group, targets])
        label = np.frombuffer(label.encode(), np.uint8)
        photo, mask = subject.photo, None
        if self.options.refine:
            mask = face_mask(photo.pixels, photo.faces[0], photo.path)
        return face_key(subject.picture, label, photo.codes, mask, *others)

    def _measure(
        self, subject: Subject, targets: list[float]
    ) -> tuple[list[np.ndarray], list[Result]]:
        """Return the results' pictures, uint8 [256, 256, 3], and what was read in each."""
        images = self._aged(subject.photo, targets)
        pictures = [resize(as_judged(image), JUDGED_SIZE) for image in images]
        face = face_area(subject.reading.landmarks, subject.picture.shape[:2])
        before = sharpness(subject.picture)
        rows = []
        for target, image, picture in zip(targets, images, pictures, strict=True):
            reading = self._judges(picture)
            cyclic = reference = None
            if self.options.protocol == "cycle":
                cyclic = self._there_and_back(subject, image)
            if self.options.protocol == "reference":
                reference = reference_reading(subject, target, reading, self.subjects)
            row = Result(
                photo=subject.name,
                person=subject.person,
                gender=subject.gender,
                group=subject.label.group,
                own_age=subject.own_age,
                target=target,
                age=reading and reading.age,
                age_by_regressor=self._own.input_age(image),
                distance=reading and subject.reading.distance(reading),
                same_gender=reading and subject.reading.same_gender(reading),
                sharpness=sharpness(picture) / before,
                niqe=_finite(niqe(picture)),
                background_psnr=_finite(psnr_outside(subject.picture, picture, face)),
                background_lpips=self._lpips_outside(subject.picture, picture, face),
                cyclic_distance=cyclic,
                reference=reference,
            )
            rows.append(row)
        return pictures, rows

    def _aged(self, photo: Photo, ages: list[float]) -> np.ndarray:
        (aged,) = self.run.age_group([photo], ages)
        return aged.images[0]

    def _there_and_back(self, subject: Subject, image: np.ndarray) -> float | None:
        """Return the distance to the input of a result, aged back to the person's own age."""
        side = len(image)
        corners = np.array([[0, 0], [0, side], [side, side], [side, 0]], float)
        face = AlignedFace(resize(image, self._pipeline.crop.size), corners)
        again = dataclasses.replace(subject.photo, pixels=image, faces=[face], codes=None)
        (returned,) = self._aged(again, [min(max(subject.own_age, 0), 100)])
        reading = self._judges(resize(as_judged(returned), JUDGED_SIZE))
        return reading and subject.reading.distance(reading)

    @paddle.no_grad()
    def _lpips_outside(self, photo: np.ndarray, result: np.ndarray, face: np.ndarray) -> float:
        """Return LPIPS of the photograph and of it with the result's background."""
        mixed = np.where(face[..., None], photo, result)
        pair = (to_network(image[None]) for image in (photo, mixed))
        return perceptual_distance(self._lpips, *pair).item()

    def real_readings(self) -> dict:
        """Return what the age judge reads in real faces: `readings` by age, and their `source`.

        Those are faces with known ages among the photographs and of `--real_path`, for which the
        judge's own `mae` and `bias` are given too; without at least `_FEWEST_REAL` of them it is
        the line measured on UTKFace.
        """
        known = [s for s in [*self.subjects, *self._real] if s.label.age is not None]
        if len(known) < _FEWEST_REAL:
            return {"readings": REAL_READINGS, "source": REAL_SOURCE}
        ages = np.array([s.label.age for s in known])
        read = np.array([s.reading.age for s in known])
        near = {float(t): np.abs(ages - t) <= 5 for t in range(0, 101, 10)}
        return {
            "readings": {t: float(read[at].mean()) for t, at in near.items() if at.sum() >= 5},
            "source": f"{len(known)} faces with known ages",
            "mae": float(np.abs(read - ages).mean()),
            "bias": float((read - ages).mean()),
        }

    @functools.cached_property
    def _real(self) -> list[Subject]:
        """The faces of `--real_path`."""
        if not self.options.real_path:
            return []
        options = dataclasses.replace(self.options, data_path=self.options.real_path, n_images=0)
        label_of = read_labels("names", Path(options.data_path))
        found = []
        photos = read_photos(options, find_inputs(options), self._pipeline.cut_faces)
        for photo in tqdm(photos, desc="real faces", unit="image", disable=None):
            if isinstance(photo, Photo):
                subject = self._subject(photo, str(photo.input.name), label_of)
                found += [subject] if subject else []
        return found

    def kid(self, photographs: np.ndarray, results: np.ndarray) -> dict:
        """Return the kernel distance of the results to real faces, by AlexNet's features."""
        real, source = photographs, "the photographs themselves"
        if self._real:
            real, source = self._features([s.picture for s in self._real]), self.options.real_path
        if min(len(real), len(results)) < 2:
            return {"KID": None, "real": source}
        value, deviation = kid(real, results)
        return {"KID": value, "deviation": deviation, "real": source, "features": "AlexNet"}


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if np.isfinite(value) else None
