"""What the demo does, apart from HTTP: faces of a photo, aged at once, as images and as video."""

from __future__ import annotations

import dataclasses
import io
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import paddle

from paddle_sam.ageing.animate import compose, frame_ages, render_between
from paddle_sam.ageing.dial import FaceDial
from paddle_sam.ageing.edits import mix, strengthen
from paddle_sam.ageing.measures import Measures
from paddle_sam.ageing.options import parse_latent_mask
from paddle_sam.ageing.photos import age_strip, portrait
from paddle_sam.ageing.pipeline import AgePipeline
from paddle_sam.core.images import LARGE_TILE, decode_image, resize, to_network, to_uint8
from paddle_sam.core.video import encode_video
from paddle_sam.demo.pictures import (
    Look,
    before,
    blended,
    decode_png,
    jpeg,
    patch,
    png,
    preview_size,
)
from paddle_sam.demo.sessions import BusyError, Session, Sessions, Subject, VideoJob, Worker
from paddle_sam.errors import ConfigError, FaceNotFoundError, PaddleSamError
from paddle_sam.faces.alignment import AlignedFace
from paddle_sam.faces.paste import paste
from paddle_sam.metrics.judges import picture_of

STRIP_TILE = 160
MAX_REFERENCES = 8

VIDEO_AGES = tuple(range(0, 101, 10))  # codes between are interpolated
VIDEO_FPS, VIDEO_SECONDS = 25, 6


@dataclass(frozen=True)
class Model:
    """A network that ages faces, and what measures its results (None: nothing)."""

    pipeline: AgePipeline
    measures: Measures | None = None


class Demo:
    """Sessions, each of one photograph, and the pictures asked for.

    Args:
        loaders: by name, functions that load a model; the first is the default. Each is called
            when its model is first used.
        sessions: what is remembered.
        queue_length: pictures that may wait to be rendered; half as many photographs may wait to
            be read.
        megapixels: size of the largest photograph; larger JPEG files are read reduced.
    """

    def __init__(
        self,
        loaders: Mapping[str, Callable[[], Model]],
        sessions: Sessions,
        queue_length: int = 64,
        megapixels: float = 50.0,
    ):
        self.loaders = dict(loaders)
        self.sessions = sessions
        self.pixels = int(1e6 * megapixels)
        self.worker = Worker(queue_length, "network")
        # Whole photographs, of which a few bytes may hold many megapixels: one at a time, and
        # beside the network, so that nobody's slider waits for somebody's upload.
        self.reader = Worker(max(queue_length // 2, 1), "photographs")
        self._models: dict[str, Model] = {}
        self._examples: dict[str, Session] = {}  # by model, read once for everybody
        self._video = threading.Lock()

    def prepare(self) -> None:
        """Load the default model and the face detector now, not when the first photo comes."""
        self._example(next(iter(self.loaders)), "")

    def close(self) -> None:
        """End the threads."""
        self.worker.close()
        self.reader.close()

    def open(self, photo: bytes, model: str = "", visitor: str = "") -> dict:
        """Find the faces of an image file, and return the new session and its faces.

        Args:
            photo: content of the image file.
            model: the model to age it with (default: the first).
            visitor: whom to take turns with.

        Raises:
            PaddleSamError: it is not an image, shows no face, or the model does not exist.
        """
        return self._opened(self._session(photo, self._known(model), visitor))

    def open_example(self, model: str = "", visitor: str = "") -> dict:
        """Open the portrait that comes with the demo, as `open` does."""
        read = self._example(self._known(model), visitor)
        faces = [dataclasses.replace(face) for face in read.faces]
        return self._opened(Session(read.model, read.photo, read.preview, read.quads, faces))

    def add_reference(self, token: str, photo: bytes) -> dict:
        """Keep the most confident face of an image file as a reference, and return its number."""
        session = self.sessions.get(token)
        if len(session.references) >= MAX_REFERENCES:
            raise ConfigError(
                f"There are {MAX_REFERENCES} reference faces already; choose one of them."
            )
        pipeline = self._models[session.model].pipeline
        faces = self.reader.run(lambda: find_faces(pipeline, self._pixels(photo), "best"), token)
        session.references += self._subjects(pipeline, faces, token)
        return {"reference": len(session.references) - 1}

    def input_image(self, token: str, face: int) -> bytes:
        """The aligned crop of a face as PNG, at the resolution of its results."""
        return png(before(chosen(self.sessions.get(token), face)))

    def reference_image(self, token: str, number: int) -> bytes:
        """The aligned crop of a reference as PNG."""
        references = self.sessions.get(token).references
        return png(numbered(references, number, "reference faces").crop)

    def aged_image(self, token: str, face: int, look: Look) -> bytes:
        """A face as PNG; remembered, so that a slider moved back answers at once."""
        session = self.sessions.get(token)
        subject = chosen(session, face, look)
        known = session.pictures.get((face, look))
        return known or self.worker.run(lambda: self._picture(session, face, subject, look), token)

    def measured(self, token: str, face: int, look: Look) -> dict[str, float]:
        """What can be measured of a result; a judge that sees no face says nothing."""
        image = decode_png(self.aged_image(token, face, look))
        session = self.sessions.get(token)
        measures = self._models[session.model].measures
        if measures is None:
            return {}
        crop, quad = session.faces[face].crop, session.quads[face]
        size = np.array(session.preview.shape[1::-1])
        # The judges see the photograph's own resolution.
        picture = picture_of(AlignedFace(crop, quad * size), session.preview)
        found = self.worker.run(lambda: measures(crop, image[None], picture), token)
        seen = {name: float(values[0]) for name, values in found.items()}
        return {name: round(value, 4) for name, value in seen.items() if not np.isnan(value)}

    def strip(self, token: str, face: int, looks: list[Look]) -> bytes:
        """The face and itself at every age, labelled, as PNG."""
        subject = chosen(self.sessions.get(token), face)
        aged = [decode_png(self.aged_image(token, face, look)) for look in looks]
        side = max(len(aged[-1]), STRIP_TILE)
        return png(age_strip(before(subject), aged, [look.age for look in looks], side, True))

    def photo(self, token: str) -> bytes:
        """The photograph, reduced for the page, as JPEG."""
        return jpeg(self.sessions.get(token).preview)

    def pasted(self, token: str, faces: list[int], look: Look, full: bool) -> bytes:
        """The photograph with aged faces: in its own size as PNG, or reduced for the page as JPEG.

        What is around the faces stays as it is in the photograph.
        """
        session = self.sessions.get(token)
        subjects = [chosen(session, face, look) for face in faces]
        aged = [
            self.worker.run(lambda pair=pair: self._rendering(session, *pair, look), token)
            for pair in zip(faces, subjects, strict=True)
        ]

        def changed(photo: np.ndarray) -> np.ndarray:
            quads = [session.quads[face] * photo.shape[1::-1] for face in faces]
            patches = zip(quads, aged, subjects, strict=True)
            return paste(photo, [patch(*one, look) for one in patches])

        if not full:
            return jpeg(changed(session.preview))
        return self.reader.run(lambda: png(changed(self._pixels(session.photo))), token)

    def start_video(self, token: str, face: int, look: Look) -> None:
        """Start to make the face grow old and young again; `look` says everything but the age.

        Frames are rendered one by one between other requests, so that sliders still answer. It
        ends when the session does. A video that is made or ready is not made again.

        Raises:
            BusyError: another visitor's video, or another one of this visitor, is being made.
        """
        session = self.sessions.get(token)
        subject = chosen(session, face, look)
        if session.video and session.video.wanted == (face, look) and not session.video.error:
            return
        if not self._video.acquire(blocking=False):
            raise BusyError("Another video is being made. Please try again when it is done.")
        job = session.video = VideoJob((face, look))
        work = (token, session, subject, look, job)
        threading.Thread(target=self._make_video, args=work, daemon=True).start()

    def video_state(self, token: str) -> dict:
        """How much of the session's video is made, whether it is ready, and what went wrong."""
        job = self.sessions.get(token).video or VideoJob(None)
        return {"done": job.done, "ready": job.data is not None, "error": job.error}

    def video(self, token: str) -> bytes:
        """The session's video as MP4."""
        job = self.sessions.get(token).video
        if job is None or job.data is None:
            raise ConfigError("The video is not ready yet.")
        return job.data

    def _make_video(
        self, token: str, session: Session, subject: Subject, look: Look, job: VideoJob
    ) -> None:
        data, error = None, ""
        try:
            frames = self._frames(token, session, subject, look, job)
            stream = io.BytesIO()
            with encode_video(stream, ".mp4", VIDEO_FPS) as video:
                for frame in [*frames, *frames[-2:0:-1]]:
                    video.add(frame)
            data = stream.getvalue()
        except PaddleSamError as expected:
            error = str(expected)
        except Exception:  # nobody waits for this thread: the page asks for the state
            logging.exception("the demo's video failed")
            error = "The video failed."
        finally:
            self._video.release()
        job.data, job.error = data, error  # now another one can be asked for

    def _frames(
        self, token: str, session: Session, subject: Subject, look: Look, job: VideoJob
    ) -> list[np.ndarray]:
        pipeline = self._models[session.model].pipeline
        looks = [dataclasses.replace(look, age=age) for age in VIDEO_AGES]

        def run(work):
            return self.worker.run(work, (token, "video"))

        codes = [run(lambda at=at: self._codes(session, subject, at)) for at in looks]
        together = run(lambda: paddle.concat(codes))
        ages = frame_ages(
            VIDEO_AGES[0], VIDEO_AGES[-1], round(VIDEO_FPS * VIDEO_SECONDS), back=True
        )
        images = render_between(pipeline, together, VIDEO_AGES, ages, batch_size=1)
        size = max(pipeline.output_size, LARGE_TILE)
        frames = []
        for age in ages:
            image = run(lambda: next(images))
            shown = blended(image, subject, dataclasses.replace(look, age=age))
            frames.append(compose(shown, size, age))
            self.sessions.get(token)  # still wanted?
            job.done = len(frames) / len(ages)
        return frames

    def _known(self, model: str) -> str:
        model = model or next(iter(self.loaders))
        if model not in self.loaders:
            raise ConfigError(f"There is no model called {model[:80]!r}.")
        return model

    def _opened(self, session: Session) -> dict:
        return {
            "session": self.sessions.add(session),
            "faces": len(session.faces),
            "model": session.model,
            "keeps": session.faces[0].dial is not None,
        }

    def _example(self, model: str, visitor: str) -> Session:
        if model not in self._examples:
            self._examples[model] = self._session(png(portrait()), model, visitor)
        return self._examples[model]

    def _pixels(self, photo: bytes) -> np.ndarray:
        return decode_image(photo, "the picture", self.pixels)

    def _session(self, photo: bytes, model: str, visitor: str) -> Session:
        def read() -> tuple[np.ndarray, list[AlignedFace], list[np.ndarray], np.ndarray]:
            pixels = self._pixels(photo)
            faces = find_faces(pipeline, pixels, "all")
            sides = np.array(pixels.shape[1::-1])
            preview = resize(pixels, preview_size(*pixels.shape[:2]))
            return preview, faces, [face.quad / sides for face in faces], sides

        def dials() -> list[FaceDial | None]:
            scale = preview.shape[1] / sides[0]
            shown = [face.scaled(scale) for face in faces]
            codes = paddle.concat([subject.inverted for subject in subjects])
            return pipeline.dials([preview] * len(faces), shown, codes)

        pipeline = self.worker.run(lambda: self._model(model), visitor).pipeline
        preview, faces, quads, sides = self.reader.run(read, visitor)
        subjects = self._subjects(pipeline, faces, visitor)
        for subject, dial in zip(subjects, self.worker.run(dials, visitor), strict=True):
            subject.dial = dial
        return Session(model, photo, preview, quads, subjects)

    def _subjects(
        self, pipeline: AgePipeline, faces: list[AlignedFace], visitor: str
    ) -> list[Subject]:
        images = paddle.to_tensor(to_network([face.image for face in faces]))
        codes = self.worker.run(lambda: pipeline.invert(images), visitor)
        return [
            Subject(face.image, images[k : k + 1], codes[k : k + 1]) for k, face in enumerate(faces)
        ]

    # What follows runs in the network's thread.

    def _picture(self, session: Session, face: int, subject: Subject, look: Look) -> bytes:
        if known := session.pictures.get((face, look)):  # made while this waited
            return known
        rendering = self._rendering(session, face, subject, look)
        picture = png(blended(rendering, subject, look))
        session.pictures.add((face, look), picture, len(picture))
        self.sessions.trim()
        return picture

    def _rendering(self, session: Session, face: int, subject: Subject, look: Look) -> np.ndarray:
        """The model's picture, uint8 [R, R, 3], before anything of the photograph is kept."""
        key = "rendering", face, dataclasses.replace(look, keep=0 if look.keep == 0 else None)
        image = session.pictures.get(key)
        if image is None:
            codes = self._codes(session, subject, look)
            image = to_uint8(self._model(session.model).pipeline.decode(codes))[0]
            session.pictures.add(key, image, image.nbytes)
            self.sessions.trim()
        return image

    def _codes(self, session: Session, subject: Subject, look: Look) -> paddle.Tensor:
        """Code [1, L, D] of a face."""
        codes = self._aged(session, subject, look)
        if look.reference is None:
            return codes
        donor = self._aged(session, session.references[look.reference], look)
        latent_mask = parse_latent_mask("", codes.shape[1])
        return mix(latent_mask, donor, look.mix)(codes, subject.inverted)

    def _aged(self, session: Session, subject: Subject, look: Look) -> paddle.Tensor:
        asked = subject.dial.aim(look.age) if subject.dial and look.keep != 0 else look.age
        codes = subject.aged.get(asked)
        if codes is None:
            pipeline = self._model(session.model).pipeline
            age = paddle.full([1], asked, "float32")
            codes = pipeline.aged_codes(subject.image, subject.inverted, age)
            subject.aged.add(asked, codes, 1)
        return strengthen(look.strength)(codes, subject.inverted)

    def _model(self, name: str) -> Model:
        if name not in self._models:
            self._models[name] = self.loaders[name]()
        return self._models[name]


def find_faces(pipeline: AgePipeline, pixels: np.ndarray, choice: str) -> list[AlignedFace]:
    """The faces of a photograph; what to do if there are none is said to a visitor."""
    try:
        return pipeline.faces(pixels, choice)
    except FaceNotFoundError as error:
        raise FaceNotFoundError(
            "No face was found in this picture. Please use one that shows a face from the front,"
            " not too small and not cut off."
        ) from error


def numbered(subjects: Sequence[Subject], number: int, what: str) -> Subject:
    """The face of a number; raises `ConfigError` where there is none."""
    if not 0 <= number < len(subjects):
        raise ConfigError(f"There are {len(subjects)} {what}; number {number} is not there.")
    return subjects[number]


def chosen(session: Session, face: int, look: Look | None = None) -> Subject:
    """A face of the photograph, once the reference of a look is known to be there, too."""
    if look is not None and look.reference is not None:
        numbered(session.references, look.reference, "reference faces")
    return numbered(session.faces, face, "faces in this photo")
