"""The web demo: upload a photo, drag the age slider.

Nothing is written to disk, and nothing is loaded from anywhere else: the page works offline.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import paddle
from flask import Flask, Response, jsonify, request, send_from_directory
from PIL import Image
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from paddle_sam.common.checks import ConfigError, FaceNotFoundError, ImageError, PaddleSamError
from paddle_sam.common.images import decode_image, to_network, to_uint8
from paddle_sam.configs.inference import parse_ages
from paddle_sam.inference.photos import portrait
from paddle_sam.inference.pipeline import AgePipeline
from paddle_sam.inference.sheets import strip
from paddle_sam.inference.web.sessions import Session, SessionEndedError, Sessions
from paddle_sam.inference.web.worker import BusyError, Worker

PAGE_FILES = Path(__file__).resolve().parent / "static"
STRIP_TILE = 160
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
STATUS = {SessionEndedError: 410, BusyError: 503}


class Demo:
    """What the pages do, apart from HTTP.

    Args:
        loaders: by name, functions that load a pipeline; the first is the default. Each is called
            when its model is first used.
        worker: does the network's work.
        sessions: what is remembered.
    """

    def __init__(
        self,
        loaders: Mapping[str, Callable[[], AgePipeline]],
        worker: Worker,
        sessions: Sessions,
    ):
        self.loaders = dict(loaders)
        self.worker = worker
        self.sessions = sessions
        self._pipelines: dict[str, AgePipeline] = {}

    def open(self, photo: np.ndarray, model: str = "") -> dict:
        """Find the faces of a photo, uint8 [H, W, 3]; returns the new session and its faces."""
        model = model or next(iter(self.loaders))
        if model not in self.loaders:
            raise ConfigError(f"There is no model called {model!r}.")
        return self.worker.run(lambda: self._open(photo, model))

    def _open(self, photo: np.ndarray, model: str) -> dict:
        pipeline = self._pipeline(model)
        try:
            faces = pipeline.faces(photo, face="all")
        except FaceNotFoundError as error:
            raise FaceNotFoundError(
                "No face was found in this picture. Please use one that shows a face from the"
                " front, not too small and not cut off."
            ) from error
        crops = np.stack([face.image for face in faces])
        images = paddle.to_tensor(to_network(crops))
        session = Session(model, crops, images, pipeline.invert(images))
        return {"session": self.sessions.add(session), "faces": len(crops), "model": model}

    def input_image(self, token: str, face: int) -> bytes:
        """The aligned crop of a face as PNG."""
        session = self.sessions.get(token)
        return png(session.crops[checked_face(session, face)])

    def aged_image(self, token: str, face: int, age: float) -> bytes:
        """A face at an age as PNG; remembered, so that a slider moved back answers at once."""
        session = self.sessions.get(token)
        checked_face(session, face)
        if not 0 <= age <= 100:
            raise ConfigError(f"The age has to be from 0 to 100, not {age:g}.")
        if (face, age) not in session.rendered:
            self.worker.run(lambda: self._render(session, face, [age]))
        return session.rendered[face, age]

    def strip(self, token: str, face: int, ages: list[float]) -> bytes:
        """The face and itself at every age, labelled, as PNG."""
        session = self.sessions.get(token)
        crop = session.crops[checked_face(session, face)]
        tiles = [crop]
        for age in ages:
            tiles.append(np.asarray(Image.open(io.BytesIO(self.aged_image(token, face, age)))))
        side = max(tiles[1].shape[0], STRIP_TILE)
        return png(strip(tiles, side, ["input", *[f"{age:g}" for age in ages]]))

    def _render(self, session: Session, face: int, ages: list[float]) -> None:
        """Runs in the worker; an age that was rendered while this waited is not done again."""
        pipeline = self._pipeline(session.model)
        for age in ages:
            if (face, age) not in session.rendered:
                one = slice(face, face + 1)
                target = paddle.to_tensor([age], dtype="float32")
                image = pipeline.render(session.images[one], session.inverted[one], target)
                session.rendered[face, age] = png(to_uint8(image.numpy())[0])

    def _pipeline(self, model: str) -> AgePipeline:
        if model not in self._pipelines:
            self._pipelines[model] = self.loaders[model]()
        return self._pipelines[model]


def checked_face(session: Session, face: int) -> int:
    if not 0 <= face < len(session.crops):
        raise ConfigError(f"This photo has {len(session.crops)} faces; number {face} is not there.")
    return face


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def make_app(demo: Demo, max_upload_mb: float = 20.0, host: str = "127.0.0.1") -> Flask:
    """The demo as a WSGI application.

    Args:
        demo: what it serves.
        max_upload_mb: largest photo accepted, in megabytes.
        host: the address it is bound to; on a loopback address, requests that name another host
            are refused, so that a page elsewhere cannot reach the demo through a forged name.
    """
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = int(max_upload_mb * 1e6)

    @app.before_request
    def only_local_names():
        name = request.host.rsplit(":", 1)[0] if not request.host.endswith("]") else request.host
        if host in ("127.0.0.1", "localhost", "::1") and name not in LOCAL_NAMES:
            return error_page(f"This demo answers to {', '.join(LOCAL_NAMES)} only.", 403)
        return None

    @app.get("/")
    def page():
        return send_from_directory(PAGE_FILES, "index.html")

    @app.get("/static/<path:name>")
    def static_file(name):
        return send_from_directory(PAGE_FILES, name)

    @app.get("/models")
    def models():
        return jsonify(list(demo.loaders))

    @app.post("/photo")
    def photo():
        uploaded = request.files.get("photo")
        if uploaded is None:
            raise ImageError("No picture arrived. Please choose one.")
        pixels = decode_image(uploaded.read(), "the picture")
        return jsonify(demo.open(pixels, request.form.get("model", "")))

    @app.post("/example")
    def example():
        return jsonify(demo.open(portrait(), request.form.get("model", "")))

    @app.get("/session/<token>/<int:face>/input.png")
    def input_image(token, face):
        return picture(demo.input_image(token, face))

    @app.get("/session/<token>/<int:face>/age/<float:age>.png")
    @app.get("/session/<token>/<int:face>/age/<int:age>.png")
    def aged_image(token, face, age):
        return picture(demo.aged_image(token, face, float(age)))

    @app.get("/session/<token>/<int:face>/strip.png")
    def age_strip(token, face):
        ages = parse_ages(request.args.get("ages", "0-100:10"))
        return picture(demo.strip(token, face, ages))

    @app.delete("/session/<token>")
    def forget(token):
        demo.sessions.forget(token)
        return jsonify({})

    @app.errorhandler(PaddleSamError)
    def mendable(error):
        return error_page(str(error), STATUS.get(type(error), 422))

    @app.errorhandler(RequestEntityTooLarge)
    def too_large(error):
        return error_page(f"The picture is larger than {max_upload_mb:g} MB.", 413)

    @app.errorhandler(HTTPException)
    def other(error):
        return error_page(error.description, error.code)

    return app


def picture(data: bytes) -> Response:
    return Response(data, mimetype="image/png", headers={"Cache-Control": "no-store"})


def error_page(message: str, status: int):
    return jsonify({"error": message}), status
