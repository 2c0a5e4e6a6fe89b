"""Everything that can only be shown on a GPU, in one command: is it right, and how fast is it?

    python -m benchmarks.gpu                          # ten minutes on a GPU
    python -m benchmarks.gpu --device cpu --small     # the same code, to see that it runs

Parity of networks with the CPU, with and without TF32; second derivatives against float64; fused
updates of weights; a step of each trainer in float32 and with --amp against the CPU's losses;
curves of many steps; two processes; the engine for inference; times and memory, beside PyTorch
where that is installed.
Writes benchmarks/results/NAME.json and NAME.md, a page to post. Ends with 1 if a check failed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np
import paddle

from benchmarks import gpu_subjects as subjects
from benchmarks import timing
from paddle_sam.core.device import resolve_device
from paddle_sam.core.weights import load_strict

ROOT = Path(__file__).resolve().parent.parent
# What a check accepts; the parity of published networks between libraries is 1e-3.
PARITY, PARITY_TF32 = 1e-3, 5e-2
SECOND_DERIVATIVES = 1e-3
UPDATES = 1e-6  # of weights of 0.05
STEP, STEP_AMP = 2e-3, 5e-2  # of a loss
GREY_HALF = 8  # grey levels, of 16-bit inference
CURVES = 0.15  # of the mean loss over the last quarter


class Report:
    """Sections of rows; a row that has `passed` false fails the command."""

    def __init__(self):
        self.sections: dict[str, list[dict]] = {}

    def add(self, section: str, **row) -> None:
        """Append a row, and show it."""
        self.sections.setdefault(section, []).append(row)
        print(f"{section}: " + ", ".join(f"{k} {_shown(v)}" for k, v in row.items()), flush=True)

    def failures(self) -> list[tuple[str, dict]]:
        """Return the rows of checks that did not pass."""
        rows = [(name, row) for name, rows in self.sections.items() for row in rows]
        return [(name, row) for name, row in rows if row.get("passed") is False]

    def page(self, machine: dict) -> str:
        """Return all of it as Markdown."""
        lines = ["# benchmarks.gpu", "", *(f"- {k}: {v}" for k, v in machine.items())]
        for name, rows in self.sections.items():
            columns = list(dict.fromkeys(key for row in rows for key in row))
            lines += ["", f"## {name}", "", "| " + " | ".join(columns) + " |"]
            lines += ["|" + "---|" * len(columns)]
            lines += [
                "| " + " | ".join(_shown(row.get(c, "")) for c in columns) + " |" for row in rows
            ]
        return "\n".join(lines) + "\n"


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto", help="auto, cpu, gpu or gpu:N")
    parser.add_argument("--small", action="store_true", help="small networks and few steps")
    parser.add_argument("--name", default="gpu", help="of the record and the page")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    options = parser.parse_args(argv)
    device = resolve_device(options.device)
    report, start = Report(), time.perf_counter()
    for name in options.sections:
        try:
            SECTIONS[name](report, device, options.small)
        except Exception:  # one section must not cost the others
            report.add(name, error=traceback.format_exc(limit=-3), passed=False)
    machine = timing.machine() | {"device": _device_name(device), "small": options.small}
    machine["seconds"] = round(time.perf_counter() - start)
    record = {"machine": machine, "sections": report.sections}
    path = timing.write(options.name, record)
    path.with_suffix(".md").write_text(report.page(machine), encoding="utf-8")
    print(f"written: {path}, {path.with_suffix('.md')}")
    for name, row in report.failures():
        print(f"FAILED: {name}: {row}", file=sys.stderr)
    return 1 if report.failures() else 0


def parity(report: Report, device: str, small: bool) -> None:
    """Each network's result on the device, against the CPU's."""
    for name, (build, shape) in subjects.networks(small).items():
        x = subjects.uniform(shape)
        want = _result("cpu", build, x)
        for tf32 in (False, True) if device != "cpu" else (False,):
            resolve_device(device, tf32)
            found = _result(device, build, x)
            largest = float(np.abs(found - want).max() / want.std())
            passed = largest <= (PARITY_TF32 if tf32 else PARITY)
            report.add("parity", network=name, tf32=tf32, of_deviation=largest, passed=passed)
    resolve_device(device)


def second_derivatives(report: Report, device: str, small: bool) -> None:
    """Gradients of R1 and of the path length penalty on the device, against the CPU's float64."""
    for name, loss in (("r1", _r1), ("path length", _path_length)):
        want = _gradient("cpu", loss, "float64")
        found = _gradient(device, loss, "float32")
        error = float(np.linalg.norm(found - want) / np.linalg.norm(want))
        passed = error <= SECOND_DERIVATIVES
        report.add("second derivatives", of=name, relative_error=error, passed=passed)


def updates(report: Report, device: str, small: bool) -> None:
    """Steps of Ranger and moved averages, fused on the device, against the CPU's."""
    for name, compute in (("Ranger", subjects.ranger_steps), ("averages", subjects.averages)):
        results = []
        for place in ("cpu", device):
            paddle.device.set_device(place)
            results.append(compute())
        largest = float(np.abs(results[1] - results[0]).max())
        report.add("updates", of=name, largest_difference=largest, passed=largest <= UPDATES)


def steps(report: Report, device: str, small: bool) -> None:
    """The losses of one step of each trainer, against the CPU's."""
    for name in subjects.TRAINERS:
        want = _losses("cpu", name, True, 1)[0]
        for amp in _precisions(device, name):
            found = _losses(device, name, True, 1, amp)[0]
            worst = max(want, key=lambda key: _relative(found[key], want[key]))
            error = _relative(found[worst], want[worst])
            passed = error <= (STEP_AMP if amp else STEP)
            row = {"trainer": name, "amp": amp, "worst": worst, "error": error, "passed": passed}
            report.add("one step", **row)


def curves(report: Report, device: str, small: bool) -> None:
    """Many steps of each trainer: the last quarter's mean loss, against the CPU's."""
    count = 8 if small else 200
    for name in subjects.TRAINERS:
        want = [step["loss"] for step in _losses("cpu", name, True, count)]
        for amp in _precisions(device, name):
            found = [step["loss"] for step in _losses(device, name, True, count, amp)]
            ends = [float(np.mean(curve[-(count // 4) :])) for curve in (found, want)]
            error = _relative(*ends)
            passed = bool(np.isfinite(found).all()) and error <= CURVES
            row = {"trainer": name, "amp": amp, "steps": count, "end": ends[0], "cpu": ends[1]}
            report.add("curves", **row, error=error, passed=passed, curve=found)


def processes(report: Report, device: str, small: bool) -> None:
    """Two processes train as one does; with fewer than two GPUs on the CPU."""
    from paddle_sam.core.images import save_image

    gpus = paddle.device.cuda.device_count() if device != "cpu" else 0
    place = "gpu" if gpus > 1 else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "images")
        data.mkdir()
        for index in range(16):
            face = (subjects.uniform((32, 32, 3), index) * 127 + 128).astype(np.uint8)
            save_image(data / f"{index}.png", face)
        found = [_run_of(Path(folder), data, place, count) for count in (1, 2)]
    error = max(_relative(two, one) for one, two in zip(*found, strict=True))
    report.add("two processes", device=place, largest_difference=error, passed=error <= STEP)


def inference(report: Report, device: str, small: bool) -> None:
    """The embedded model by the engine for inference, against its layers."""
    from paddle_sam.ageing.pipeline import AgePipeline

    ages, strip = [10, 40, 70], np.linspace(0, 100, 11)
    eager = AgePipeline.from_checkpoint(device=device, engine="eager")
    crops = ((subjects.uniform((2, *[eager.network.input_size] * 2, 3)) + 1) * 127).astype("uint8")
    want = eager.age(crops, ages).astype(int)
    halves = ("gpu-fp16",) if device != "cpu" else ()
    for engine in ("eager", "onednn", *halves):
        pipeline = AgePipeline.from_checkpoint(device=device, engine=engine)
        largest = int(np.abs(pipeline.age(crops, ages) - want).max())
        times = timing.measure(lambda p=pipeline: p.age(crops[:1], strip, batch_size=11), 3)
        row = {"engine": engine, "grey_levels": largest, "strip_s": times["median_s"]}
        report.add("inference", **row, passed=largest <= (GREY_HALF if engine in halves else 1))


def times(report: Report, device: str, small: bool) -> None:
    """Seconds and memory of an age strip and of training steps, PyTorch's strip beside."""
    for name, size in (("sam", 2), ("sam", 6), ("stylegan2", 4)):
        for amp in _precisions(device, name):
            trainer = subjects.trainer(name, small, batch_size=size, amp=amp)
            counter = iter(range(1000))

            def step(trainer=trainer, name=name, size=size, counter=counter):
                number = next(counter)
                trainer.train_step(subjects.batch(name, trainer, size), number)

            subjects.forget_peak()
            found = timing.measure(step, 2 if small else 4)
            row = {"what": f"{name} step", "batch": size, "amp": amp, "seconds": found["median_s"]}
            report.add("times", **row, memory_gb=subjects.peak())
            stages = subjects.Stages(trainer, *subjects.STAGES[name])
            for number in range(2 if small else 4):  # also what is due every second step
                trainer.train_step(subjects.batch(name, trainer, size), 2 * number)
            for stage, seconds, peak in stages.found():
                row |= {"what": f"{name} step: {stage}", "seconds": seconds, "memory_gb": peak}
                report.add("stages", **row)
            del trainer, stages
    network, _ = _sam(small)
    face = subjects.uniform((1, 3, *[network.input_size] * 2))
    _strip(report, device, "Paddle", network, face)
    try:
        import torch
    except ImportError:
        report.add("times", what="strip, PyTorch", seconds="not installed")
        return
    where = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    _torch_strip(report, where, network, face)


SECTIONS = {
    "parity": parity,
    "second_derivatives": second_derivatives,
    "updates": updates,
    "steps": steps,
    "curves": curves,
    "processes": processes,
    "inference": inference,
    "times": times,
}


def _result(device: str, build, x: np.ndarray) -> np.ndarray:
    """What a network with the CPU's random weights returns on a device."""
    paddle.device.set_device("cpu")
    paddle.seed(0)
    network = build()
    network.eval()
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    paddle.device.set_device(device)
    network = build()
    network.eval()
    load_strict(network, state, "the network of the CPU")
    with paddle.no_grad():
        return network(paddle.to_tensor(x)).numpy()


def _gradient(device: str, loss, dtype: str) -> np.ndarray:
    paddle.device.set_device(device)
    network, value = loss(dtype)
    value.backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    return np.concatenate([g.numpy().astype(np.float64).ravel() for g in gradients])


def _r1(dtype: str):
    from paddle_sam.training.trainers import r1_penalty

    network = _same_weights(subjects.networks(True)["discriminator"][0](), dtype)
    images = paddle.to_tensor(subjects.uniform((4, 3, 64, 64)), dtype, stop_gradient=False)
    return network, r1_penalty(network(images)[:, 0], images).mean()


def _path_length(dtype: str):
    from paddle_sam.training.trainers import path_lengths

    network = _same_weights(subjects.networks(True)["generator"][0](), dtype)
    codes = paddle.to_tensor(subjects.uniform((2, 10, 64)), dtype, stop_gradient=False)
    noise = paddle.to_tensor(subjects.uniform((2, 3, 64, 64), 1), dtype)
    with network.second_derivatives():
        lengths = path_lengths(network(codes), codes, noise)
    return network, (lengths - 1).square().mean()


def _same_weights(network, dtype: str):
    """Fill a network with numbers that are the same on every device."""
    rng = np.random.default_rng(0)
    for tensor in [*network.parameters(), *network.buffers()]:
        if not tensor.name.endswith("kernel") and tensor.shape != [4, 4]:  # filters stay
            tensor.set_value(rng.standard_normal(tensor.shape).astype(np.float32))
    network.to(dtype=dtype)
    return network


def _losses(device: str, name: str, small: bool, count: int, amp: bool = False) -> list[dict]:
    """What each step logs; weights and images are the CPU's."""
    resolve_device("cpu")
    state = subjects.trainer(name, small, batch_size=4).state.saved()
    resolve_device(device)
    trainer = subjects.trainer(name, small, batch_size=4, **({"amp": True} if amp else {}))
    trainer.state.restore(state)
    return [
        trainer.train_step(subjects.batch(name, trainer, 4, step), step) for step in range(count)
    ]


def _precisions(device: str, trainer: str) -> tuple[bool, ...]:
    """Whether to train without and with --amp: StarGAN v2 has none, and a CPU neither."""
    return (False, True) if device != "cpu" and trainer != "stargan2" else (False,)


def _run_of(folder: Path, data: Path, device: str, count: int) -> list[float]:
    """The losses that a short run of `scripts/train_stylegan2.py` records."""
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", str(count)]
    launch += ["--log_dir", str(folder / "logs")]
    flags = {
        **{"resolution": 32, "latent_dim": 16, "mapping_layers": 2, "channel_base": 512},
        **{"channel_max": 16, "batch_size": 4, "mbstd_group": 2, "total_kimg": 0.016},
        **{"log_kimg": 0.004, "train_data": data, "exp_dir": folder / str(count), "num_workers": 0},
        **{"device": device, "augment": "none"},
    }
    command = [sys.executable, *(launch if count > 1 else [])]
    command += [str(ROOT / "scripts" / "train_stylegan2.py")]
    command += [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{count} processes: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    lines = (folder / str(count) / "stats.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines if '"loss"' in line]


def _sam(small: bool):
    from benchmarks.train_step import build_networks

    paddle.seed(0)
    network, arch = build_networks("mini" if small else "published")
    network.eval()
    return network, arch


def _strip(report: Report, device: str, library: str, network, face: np.ndarray) -> None:
    from paddle_sam.ageing.pipeline import AgePipeline
    from paddle_sam.faces.alignment import CropSettings

    pipeline = AgePipeline(network, CropSettings(size=network.input_size))
    crops = ((face.transpose(0, 2, 3, 1) + 1) * 127).astype(np.uint8)
    subjects.forget_peak()
    strip = np.linspace(0, 100, 11)
    found = timing.measure(lambda: pipeline.age(crops, strip), 2)
    row = {"what": f"strip, {library}", "batch": 4, "seconds": found["median_s"]}
    report.add("times", **row, memory_gb=subjects.peak())
    stages = subjects.Stages(network, "invert", "encode", "decode")
    pipeline.age(crops, strip)
    for stage, seconds, peak in stages.found():
        row = {"what": f"strip: {stage}", "batch": 4, "seconds": seconds, "memory_gb": peak}
        report.add("stages", **row)


def _torch_strip(report: Report, where: str, network, face: np.ndarray) -> None:
    """The published arithmetic in PyTorch: both encoders at every age."""
    import torch

    from benchmarks.naive import NaiveSAM, torch_ops

    subject = NaiveSAM(network, torch_ops())
    subject.weights = {name: weight.to(where) for name, weight in subject.weights.items()}
    subject.fir = subject.fir.to(where)
    image = torch.from_numpy(face).to(where)

    def one_age():
        with torch.no_grad():
            return subject(image, 40.0).cpu().numpy()

    found = timing.measure(one_age, 2)
    row = {"what": "strip, PyTorch", "batch": 1, "seconds": 11 * found["median_s"]}
    report.add("times", **row)


def _device_name(device: str) -> str:
    if device == "cpu":
        return "cpu"
    return f"{device}: {paddle.device.cuda.get_device_properties(device).name}"


def _relative(found: float, want: float) -> float:
    return abs(found - want) / max(abs(want), 1e-2)


def _shown(value) -> str:
    if isinstance(value, list):
        return " ".join(f"{one:.3g}" for one in value[:: max(1, len(value) // 8)])
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    raise SystemExit(main())
