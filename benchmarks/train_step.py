"""Time and peak memory of SAM training steps, and what doing shared work once saves.

    OMP_NUM_THREADS=2 python -m benchmarks.train_step [--size published]

Variants, each in a process of its own: `recompute` treats the frozen networks as the published
code does (gradients for their weights, the input's features computed again for every loss), `once`
is the trainer as it is, `parts` renders and judges one image at a time (`--decoder_batch 1`).
`torch` is the published arithmetic in PyTorch without the networks that judge and without the
optimizer, so less than a step of the published code. Weights are random; a step costs the same
whatever they are. The first step is warm-up, and at its end allocates what the optimizer keeps:
its peak of memory is given apart.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from benchmarks import timing

VARIANTS = ("recompute", "once", "parts", "torch")
SIZES = ("published", "mini")


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="published", help="of the networks")
    parser.add_argument("--batch_size", type=int, default=2, help="images per step")
    parser.add_argument("--steps", type=int, default=2, help="measured steps")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--child", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        print(json.dumps(measure(options.child, options.size, options.batch_size, options.steps)))
        return 0
    record = {
        "machine": timing.machine(),
        "threads": os.environ.get("OMP_NUM_THREADS", "all CPUs; torch: 1"),
        "size": options.size,
        "batch_size": options.batch_size,
        "variants": {},
    }
    for variant in options.variants:
        arguments = ["--child", variant, "--size", options.size]
        arguments += ["--batch_size", str(options.batch_size), "--steps", str(options.steps)]
        found = timing.in_own_process("benchmarks.train_step", arguments)
        record["variants"][variant] = found
        numbers = {k: v for k, v in found.items() if k.endswith("_gb")}
        print(f"{variant}: {found['median_s']:.1f} s {numbers}", flush=True)
        written = timing.write(f"train_step_{options.size}", record)
    print(written)
    return 0


def measure(variant: str, size: str, batch_size: int, steps: int) -> dict:
    """Seconds of the measured steps, the process's peak memory so far and in all, and the loss."""
    import numpy as np
    import paddle

    from paddle_sam.core.device import resolve_device
    from paddle_sam.imagesets.loader import Batch

    resolve_device("cpu")
    paddle.seed(0)
    if variant == "torch":
        return timing.measure(torch_step(build_networks(size)[0], batch_size), steps)
    trainer = build_trainer(size, batch_size, decoder_batch=1 if variant == "parts" else 0)
    if variant == "recompute":
        recompute_everything(trainer)
    side = trainer.network.input_size
    images = np.random.default_rng(0).uniform(-1, 1, (batch_size, 3, side, side))
    batch = Batch(images.astype("float32"), None, tuple(map(Path, map(str, range(batch_size)))))
    ages = np.linspace(0.2, 0.7, batch_size, dtype="float32")
    losses = []

    def step():
        losses.append(trainer.accumulate(batch, ages)["loss"])
        trainer.update()
        trainer.network.clear_gradients()

    step()
    peaks = {"first_step_peak_memory_gb": timing.peak_memory_gb()}
    times = timing.measure(step, steps, warmups=0)
    return {**times, **peaks, "peak_memory_gb": timing.peak_memory_gb(), "loss": losses[-1]}


def torch_step(network, batch_size: int):
    """Both passes of a step, forward and backward, by `NaiveSAM` in torch."""
    import numpy as np
    import torch

    from benchmarks.naive import NaiveSAM, torch_ops

    subject = NaiveSAM(network, torch_ops(), training=True)
    for name, weight in subject.weights.items():
        weight.requires_grad_(not name.endswith(("._mean", "._variance")))
    side = network.input_size
    images = np.random.default_rng(0).uniform(-1, 1, (batch_size, 3, side, side))

    def render(x, age: float):
        plane = torch.full_like(x[:, :1], age)
        codes = subject.encode("encoder", torch.cat([x, plane], 1))
        codes = codes + subject.encode("pretrained_encoder", x) + subject.weights["latent_avg"]
        images = torch.cat([subject.decode(code) for code in codes.split(1)])
        return torch.nn.functional.adaptive_avg_pool2d(images, side)

    def step():
        x = torch.from_numpy(images.astype("float32"))
        for age in (0.6, 0.3):
            x = render(x, age)
            x.square().mean().backward()
            x = x.detach()

    return step


def build_networks(size: str):
    """A SAM network with random weights, and its description."""
    from paddle_sam.ageing.train.run import new_encoder
    from paddle_sam.networks.sam import build_sam

    decoder = {"size": 1024, "style_dim": 512}
    if size == "mini":
        channels = {4: 256, 8: 256, 16: 128, 32: 64, 64: 32}
        decoder = {"size": 64, "style_dim": 128, "mapping_layers": 4, "channels": channels}
    encoder = new_encoder(decoder)
    arch = {
        "encoder": {**encoder, "in_channels": 4},
        "decoder": decoder,
        "pretrained_encoder": {**encoder, "in_channels": 3},
        "start": "encoded_w_plus",
    }
    return build_sam(**arch), arch


def build_trainer(size: str, batch_size: int, decoder_batch: int, **changes):
    """A trainer with random weights, published or mini; `changes` are further options."""
    from paddle_sam.ageing.losses import LossWeights, SAMLoss
    from paddle_sam.ageing.train.options import AGE_SIZES, SAMOptions
    from paddle_sam.ageing.train.trainer import Assembled, SAMTrainer
    from paddle_sam.networks.face_networks import AgeRegressor, FaceEmbedder
    from paddle_sam.networks.image_features import LPIPS

    network, arch = build_networks(size)
    for part in (network.decoder, network.pretrained_encoder):
        for parameter in part.parameters():
            parameter.stop_gradient = True
    config = SAMOptions(
        start_from_encoded_w_plus=True,
        use_weighted_id_loss=True,
        batch_size=batch_size,
        decoder_batch=decoder_batch,
        output_size=arch["decoder"]["size"],
        **{"learning_rate": 0.0, **changes},  # 0: every step has the same loss
    )
    widths, fc = AGE_SIZES[size]
    regressor = AgeRegressor(224 if size == "published" else 64, widths, fc)
    loss = SAMLoss(
        LossWeights(), LPIPS(), FaceEmbedder(), regressor, network.latent_avg, weigh_identity=True
    )
    return SAMTrainer(Assembled(network, arch, None), loss, config)


def recompute_everything(trainer) -> None:
    """Treat the frozen networks as the published code does."""
    loss, network = trainer.loss, trainer.network
    frozen = (loss.embedder, loss.age_regressor, loss.lpips, network.decoder)
    for part in (*frozen, network.pretrained_encoder):
        for name, parameter in part.named_parameters():
            parameter.stop_gradient = name.endswith(("._mean", "._variance"))
    judge = type(loss).__call__

    def judge_again(self, output, w_plus, reference, *rest):
        again = self.reference(reference.target, reference.target)  # given twice: embedded twice
        judgement = judge(self, output, w_plus, again, *rest)
        for part in frozen[:3]:
            part.clear_gradients()
        return judgement

    type(loss).__call__ = judge_again


if __name__ == "__main__":
    raise SystemExit(main())
