"""Run folders of version 0.1 resume, and give what that version would have given."""

import json

import pytest

from paddle_sam.ageing.train import age_options, age_run
from paddle_sam.ageing.train import options as sam_options
from paddle_sam.ageing.train import run as sam_run
from paddle_sam.options import from_dict
from paddle_sam.stargan2 import options as stargan2_options
from paddle_sam.stargan2 import run as stargan2_run
from paddle_sam.stylegan2.train import options as stylegan2_options
from paddle_sam.stylegan2.train import run as stylegan2_run
from tests.unit.training import old_runs

KINDS = {
    "sam": (sam_options.SAMConfig, old_runs.SAM, sam_run.train_sam, {"max_steps": 4}),
    "age": (age_options.AgeConfig, old_runs.AGE, age_run.train_age, {"max_steps": 4}),
    "stylegan2": (
        *(stylegan2_options.StyleGAN2Config, old_runs.STYLEGAN2, stylegan2_run.train_stylegan2),
        {"total_kimg": 0.024},
    ),
    "stargan2": (
        *(stargan2_options.StarGAN2Config, old_runs.STARGAN2, stargan2_run.train_stargan2),
        {"total_iters": 4},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_folder_of_version_0_1_resumes(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(age_options.SIZES, "mini", old_runs.AGE_SIZE)
    options_type, given, train, whole = KINDS[kind]
    folder = old_runs.unpack(kind, tmp_path)
    train(from_dict(options_type, {**given, **whole, "exp_dir": kind}))
    found, wanted = (
        [json.loads(line) for line in (folder / name).read_text().splitlines()]
        for name in ("stats.jsonl", "expected.jsonl")
    )
    assert [(r["split"], r["step"]) for r in found] == [(r["split"], r["step"]) for r in wanted]
    for ours, theirs in zip(found, wanted, strict=True):
        if theirs["split"] != "run":
            del ours["time"], theirs["time"], ours["split"], theirs["split"]
            assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-5)
