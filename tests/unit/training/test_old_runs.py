"""Run folders of version 0.1 resume, and give what that version would have given."""

import dataclasses
import json

import pytest

from paddle_sam.ageing.train import age
from paddle_sam.ageing.train import options as sam_options
from paddle_sam.ageing.train import run as sam_run
from paddle_sam.options import read_json
from paddle_sam.stargan2 import options as stargan2_options
from paddle_sam.stargan2 import trainer as stargan2_trainer
from paddle_sam.stylegan2.train import options as stylegan2_options
from paddle_sam.stylegan2.train import run as stylegan2_run
from tests.unit.training import old_runs

KINDS = {
    "sam": (sam_options.SAMOptions, sam_run.train_sam, {"max_steps": 4}),
    "age": (sam_options.AgeOptions, age.train_age, {"max_steps": 4}),
    "stylegan2": (
        *(stylegan2_options.StyleGAN2Options, stylegan2_run.train_stylegan2),
        {"total_kimg": 0.024},
    ),
    "stargan2": (
        *(stargan2_options.StarGAN2Options, stargan2_trainer.train_stargan2),
        {"total_iters": 4},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_folder_of_version_0_1_resumes(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sam_options.AGE_SIZES, "mini", old_runs.AGE_SIZE)
    options_type, train, whole = KINDS[kind]
    folder = old_runs.unpack(kind, tmp_path)
    train(dataclasses.replace(read_json(options_type, folder / "opt.json"), **whole))
    found, wanted = (
        [json.loads(line) for line in (folder / name).read_text().splitlines()]
        for name in ("stats.jsonl", "expected.jsonl")
    )
    assert [(r["split"], r["step"]) for r in found] == [(r["split"], r["step"]) for r in wanted]
    for ours, theirs in zip(found, wanted, strict=True):
        if theirs["split"] != "run":
            del ours["time"], theirs["time"], ours["split"], theirs["split"]
            assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-5)
