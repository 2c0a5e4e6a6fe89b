"""One pipeline serves the threads of a web server: each caller gets its own face's images."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from paddle_sam.ageing.pipeline import AgePipeline
from paddle_sam.export import engine as engine_module

THREADS = 8
AGE = [40]


@pytest.fixture
def faces():
    return np.random.default_rng(0).integers(0, 256, (THREADS, 1, 32, 32, 3), np.uint8)


def wrong_answers(pipeline, faces, calls: int) -> int:
    """How many of `calls` from `THREADS` threads are not what the face alone gives."""
    alone = [pipeline.age(face, AGE).astype(int) for face in faces]
    assert min(np.abs(one - alone[0]).max() for one in alone[1:]) > 10  # faces can be told apart

    def is_wrong(call: int) -> bool:
        face = call % THREADS
        return np.abs(pipeline.age(faces[face], AGE) - alone[face]).max() > 1

    with ThreadPoolExecutor(THREADS) as pool:
        return sum(pool.map(is_wrong, range(calls)))


@pytest.mark.parametrize(
    ("engine", "calls"),
    [("onednn", 200), pytest.param("onednn", 2000, marks=pytest.mark.slow), ("eager", 100)],
)
def test_threads_share_a_pipeline(checkpoint, cache_folder, faces, engine, calls):
    pipeline = AgePipeline.from_checkpoint(checkpoint, "cpu", engine)
    assert wrong_answers(pipeline, faces, calls) == 0


def test_threads_share_a_network_that_swaps_its_encoders(
    checkpoint, cache_folder, faces, monkeypatch
):
    monkeypatch.setattr(engine_module, "LARGE", 0)
    pipeline = AgePipeline.from_checkpoint(checkpoint, "cpu", "onednn")
    assert wrong_answers(pipeline, faces, 16) == 0
    assert len(set(pipeline.network._predictors) & set(engine_module.ENCODERS)) == 1
