"""What the demo does, apart from HTTP: faces of a photo, aged at once, as images and as video."""

from __future__ import annotations

import dataclasses
import io
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import paddle
from PIL import Image

from paddle_sam.ageing.animate import compose, frame_ages, render_between
from paddle_sam.ageing.edits import mix, strengthen
from paddle_sam.ageing.measures import Measures
from paddle_sam.ageing.options import parse_latent_mask
from paddle_sam.ageing.photos import portrait
from paddle_sam.ageing.pipeline import AgePipeline
from paddle_sam.core.images import decode_image, resize, to_network, to_uint8
from paddle_sam.core.sheets import LARGE_TILE, strip
from paddle_sam.core.video import encode_video
from paddle_sam.demo.sessions import Session, Sessions, Subject
from paddle_sam.demo.worker import BusyError, Worker
from paddle_sam.errors import ConfigError, FaceNotFoundError
from paddle_sam.faces.paste import paste_back

STRIP_TILE = 160
PREVIEW_SIDE = 1200
MAX_STRENGTH = 3.0
MAX_REFERENCES = 8

VIDEO_AGES = tuple(range(0, 101, 10))  # codes between are interpolated
VIDEO_FPS, VIDEO_SECONDS = 25, 6


@dataclass(frozen=True)
class Model:
    """A network that ages faces, and what measures its results (None: nothing)."""

    pipeline: AgePipeline
    measures: Measures | None = None


@dataclass(frozen=True)
class Look:
    """What a face is rendered as.

    age: in years. strength: factor on what ageing changes. reference: number of the face whose
    finer codes are mixed in, aged alike; None for none. mix: its share in these codes.
    """

    age: float
    strength: float = 1.0
    reference: int | None = None
    mix: float = 1.0

    def __post_init__(self):
        limits = {"age": (0, 100), "strength": (0, MAX_STRENGTH), "mix": (0, 1)}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"The {name} has to be from {low:g} to {high:g}, not {value:g}.")


class Demo:
    """Sessions, each of one photograph, and the pictures asked for.

    Args:
        loaders: by name, functions that load a model; the first is the default. Each is called
            when its model is first used.
        worker: does the network's work.
        sessions: what is remembered.
    """

    def __init__(
        self, loaders: Mapping[str, Callable[[], Model]], worker: Worker, sessions: Sessions
    ):
        self.loaders = dict(loaders)
        self.worker = worker
        self.sessions = sessions
        self._models: dict[str, Model] = {}
        self._video, self._full_size = threading.Lock(), threading.Lock()

    def prepare(self) -> None:
        """Load the default model and the face detector now, not when the first photo comes."""
        self.worker.run(lambda: self._subjects(portrait(), next(iter(self.loaders)), "best"))

    def open(self, photo: bytes, model: str = "") -> dict:
        """Find the faces of an image file; returns the new session and its faces.

        Raises:
            PaddleSamError: it is no image, shows no face, or there is no such model.
        """
        model = model or next(iter(self.loaders))
        if model not in self.loaders:
            raise ConfigError(f"There is no model called {model!r}.")
        session = self.worker.run(lambda: self._session(photo, model))
        return {"session": self.sessions.add(session), "faces": len(session.faces), "model": model}

    def add_reference(self, token: str, photo: bytes) -> dict:
        """Keep the most confident face of an image file as a reference; returns its number."""
        session = self.sessions.get(token)
        return {"reference": self.worker.run(lambda: self._add_reference(session, photo))}

    def input_image(self, token: str, face: int) -> bytes:
        """The aligned crop of a face as PNG."""
        return png(checked_face(self.sessions.get(token), face).crop)

    def reference_image(self, token: str, number: int) -> bytes:
        """The aligned crop of a reference as PNG."""
        return png(checked_reference(self.sessions.get(token), number).crop)

    def aged_image(self, token: str, face: int, look: Look) -> bytes:
        """A face as PNG; remembered, so that a slider moved back answers at once."""
        session = self.sessions.get(token)
        subject = checked_face(session, face)
        if look.reference is not None:
            checked_reference(session, look.reference)
        known = session.pictures.get((face, look))
        return known or self.worker.run(lambda: self._picture(session, face, subject, look))

    def measured(self, token: str, face: int, look: Look) -> dict[str, float]:
        """What can be measured of a result: apparent age in years, similarity to the input."""
        image = decode_png(self.aged_image(token, face, look))
        session = self.sessions.get(token)
        measures = self._models[session.model].measures
        if measures is None:
            return {}
        crop = session.faces[face].crop
        found = self.worker.run(lambda: measures(crop, image[None]))
        return {name: round(float(values[0]), 4) for name, values in found.items()}

    def strip(self, token: str, face: int, looks: list[Look]) -> bytes:
        """The face and itself at every age, labelled, as PNG."""
        crop = checked_face(self.sessions.get(token), face).crop
        tiles = [crop, *[decode_png(self.aged_image(token, face, look)) for look in looks]]
        side = max(tiles[-1].shape[0], STRIP_TILE)
        return png(strip(tiles, side, ["input", *[f"{look.age:g}" for look in looks]]))

    def photo(self, token: str) -> bytes:
        """The photograph, reduced for the page, as JPEG."""
        return jpeg(self.sessions.get(token).preview)

    def pasted(self, token: str, faces: list[int], look: Look, full: bool) -> bytes:
        """The photograph with aged faces: in its own size as PNG, or reduced for the page as JPEG.

        What is around the faces stays as it is in the photograph.
        """
        session = self.sessions.get(token)
        aged = [decode_png(self.aged_image(token, face, look)) for face in faces]

        def changed(photo: np.ndarray) -> np.ndarray:
            quads = [session.quads[face] * photo.shape[1::-1] for face in faces]
            return paste_back(photo, aged, quads)

        if not full:
            return jpeg(changed(session.preview))
        with self._full_size:  # one at a time, as when they are opened
            return png(changed(decode_image(session.photo, "the picture")))

    def video(self, token: str, face: int, look: Look) -> bytes:
        """The face growing old and young again as MP4; `look` says everything but the age.

        Frames are rendered one by one between other requests, so that sliders still answer; it
        ends when the session does.

        Raises:
            BusyError: another video is being made.
        """
        session = self.sessions.get(token)
        subject = checked_face(session, face)
        if not self._video.acquire(blocking=False):
            raise BusyError("Another video is being made. Please try again when it is done.")
        try:
            frames = self._frames(token, session, subject, look)
        finally:
            self._video.release()
            session.video_done = 0.0
        stream = io.BytesIO()
        with encode_video(stream, ".mp4", VIDEO_FPS) as video:
            for frame in [*frames, *frames[-2:0:-1]]:
                video.add(frame)
        return stream.getvalue()

    def _frames(
        self, token: str, session: Session, subject: Subject, look: Look
    ) -> list[np.ndarray]:
        pipeline = self._models[session.model].pipeline
        looks = [dataclasses.replace(look, age=age) for age in VIDEO_AGES]
        run = self.worker.run
        codes = [run(lambda at=at: self._codes(session, subject, at)) for at in looks]
        together = run(lambda: paddle.concat(codes))
        ages = frame_ages(
            VIDEO_AGES[0], VIDEO_AGES[-1], round(VIDEO_FPS * VIDEO_SECONDS), back=True
        )
        images = render_between(pipeline, together, VIDEO_AGES, ages, batch_size=1)
        size = max(pipeline.output_size, LARGE_TILE)
        frames = []
        for age in ages:
            frames.append(compose(run(lambda: next(images)), size, age))
            self.sessions.get(token)  # still wanted?
            session.video_done = len(frames) / len(ages)
        return frames

    # What follows runs in the worker, decoding included: large photographs, of which a few bytes
    # may hold many, are opened one at a time.

    def _session(self, photo: bytes, model: str) -> Session:
        pixels = decode_image(photo, "the picture")
        subjects, quads = self._subjects(pixels, model, "all")
        sides = np.array(pixels.shape[1::-1])
        preview = resize(pixels, preview_size(*pixels.shape[:2]))
        return Session(model, photo, preview, [quad / sides for quad in quads], subjects)

    def _add_reference(self, session: Session, photo: bytes) -> int:
        if len(session.references) >= MAX_REFERENCES:
            raise ConfigError(
                f"There are {MAX_REFERENCES} reference faces already; choose one of them."
            )
        pixels = decode_image(photo, "the picture")
        (subject,), _ = self._subjects(pixels, session.model, "best")
        session.references.append(subject)
        return len(session.references) - 1

    def _subjects(
        self, pixels: np.ndarray, model: str, choice: str
    ) -> tuple[list[Subject], list[np.ndarray]]:
        """The faces of a photograph, and their quads in it."""
        pipeline = self._model(model).pipeline
        try:
            faces = pipeline.faces(pixels, choice)
        except FaceNotFoundError as error:
            raise FaceNotFoundError(
                "No face was found in this picture. Please use one that shows a face from the"
                " front, not too small and not cut off."
            ) from error
        images = paddle.to_tensor(to_network([face.image for face in faces]))
        codes = pipeline.invert(images)
        subjects = [
            Subject(face.image, images[k : k + 1], codes[k : k + 1]) for k, face in enumerate(faces)
        ]
        return subjects, [face.quad for face in faces]

    def _picture(self, session: Session, face: int, subject: Subject, look: Look) -> bytes:
        if known := session.pictures.get((face, look)):  # made while this waited
            return known
        pipeline = self._model(session.model).pipeline
        image = pipeline.decode(self._codes(session, subject, look))
        picture = png(to_uint8(image.numpy())[0])
        session.pictures.add((face, look), picture, len(picture))
        return picture

    def _codes(self, session: Session, subject: Subject, look: Look) -> paddle.Tensor:
        """Code [1, L, D] of a face."""
        codes = self._aged(session, subject, look)
        if look.reference is None:
            return codes
        donor = self._aged(session, session.references[look.reference], look)
        latent_mask = parse_latent_mask("", codes.shape[1])
        return mix(latent_mask, donor, look.mix)(codes, subject.inverted)

    def _aged(self, session: Session, subject: Subject, look: Look) -> paddle.Tensor:
        codes = subject.aged.get(look.age)
        if codes is None:
            pipeline = self._model(session.model).pipeline
            age = paddle.full([1], look.age, "float32")
            codes = pipeline.aged_codes(subject.image, subject.inverted, age)
            subject.aged.add(look.age, codes, 1)
        return strengthen(look.strength)(codes, subject.inverted)

    def _model(self, name: str) -> Model:
        if name not in self._models:
            self._models[name] = self.loaders[name]()
        return self._models[name]


def checked_face(session: Session, face: int) -> Subject:
    """A face of the photograph; raises `ConfigError` where there is none of that number."""
    if not 0 <= face < len(session.faces):
        raise ConfigError(f"This photo has {len(session.faces)} faces; number {face} is not there.")
    return session.faces[face]


def checked_reference(session: Session, number: int) -> Subject:
    """A reference face; raises `ConfigError` where there is none of that number."""
    if not 0 <= number < len(session.references):
        raise ConfigError(
            f"There are {len(session.references)} reference faces; number {number} is not there."
        )
    return session.references[number]


def preview_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of a photograph, its longer side reduced to `PREVIEW_SIDE`.

    >>> preview_size(3000, 4000), preview_size(300, 400)
    ((900, 1200), (300, 400))
    """
    scale = min(1, PREVIEW_SIDE / max(height, width))
    return max(round(height * scale), 1), max(round(width * scale), 1)


def png(image: np.ndarray) -> bytes:
    """uint8 [H, W, 3] as a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", compress_level=1)  # a browser is waiting for it
    return stream.getvalue()


def jpeg(image: np.ndarray) -> bytes:
    """uint8 [H, W, 3] as a JPEG file."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def decode_png(data: bytes) -> np.ndarray:
    """What `png` was given."""
    return np.asarray(Image.open(io.BytesIO(data)))
