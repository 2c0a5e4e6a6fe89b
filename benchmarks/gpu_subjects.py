"""Networks, trainers and batches of `benchmarks.gpu`, small or full, with random weights."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np
import paddle
from paddle import nn

from benchmarks import timing
from paddle_sam.imagesets.loader import Batch
from paddle_sam.networks.face_networks import FaceEmbedder
from paddle_sam.networks.image_features import LPIPS
from paddle_sam.networks.load import freeze
from paddle_sam.networks.sam import GradualStyleEncoder
from paddle_sam.networks.stylegan2 import Discriminator, Generator
from paddle_sam.training.ranger import Ranger, groups_by_layout
from paddle_sam.training.trainers import averaged_copy, update_average

TRAINERS = ("sam", "stylegan2", "stargan2")


def uniform(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return float32 values in [-1, 1]."""
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype("float32")


def networks(small: bool) -> dict[str, tuple]:
    """Return, by name, a function that builds a network and the shape of its input.

    The generator takes W+ codes [N, L, D], the others images [N, C, H, W].
    """
    if small:
        channels = dict.fromkeys((4, 8, 16, 32, 64), 32)
        body = {"style_dim": 64, "stem": 16, "widths": (16, 32, 64, 64), "units": (2, 2, 2, 2)}
        body |= {"n_styles": 10}
        generator = {"size": 64, "style_dim": 64, "mapping_layers": 2, "channels": channels}
        sizes = {"encoder": 64, "faces": 32, "images": 64, "codes": (10, 64)}
        units = (1, 1, 1, 1)
    else:
        body, generator, units = {}, {"size": 1024}, (3, 4, 14, 3)
        sizes = {"encoder": 256, "faces": 112, "images": 256, "codes": (18, 512)}
    side = sizes["images"]
    judge = {"channels": generator["channels"]} if small else {}
    return {
        "generator": (lambda: Rendering(**generator), (1, *sizes["codes"])),
        "discriminator": (lambda: Discriminator(side, **judge), (4, 3, side, side)),
        "encoder": (
            lambda: GradualStyleEncoder(sizes["encoder"], **body),
            (1, 3, sizes["encoder"], sizes["encoder"]),
        ),
        "face embedder": (
            lambda: FaceEmbedder(sizes["faces"], units=units),
            (2, 3, sizes["faces"], sizes["faces"]),
        ),
        "lpips": (lambda: Distances("alex"), (2, 3, side, side)),
    }


class Rendering(Generator):
    """A generator as a function of W+ codes, with the stored noise."""

    def forward(self, codes):
        return self.render(codes)


class Distances(LPIPS):
    """LPIPS as a function of one batch of images: from each to the next."""

    def forward(self, images):
        return super().forward(images, images.roll(1, 0))


def trainer(name: str, small: bool, **changes):
    """Build a trainer with random weights; `changes` are options, such as `amp` or `batch_size`."""
    paddle.seed(0)
    return {"sam": _sam, "stylegan2": _stylegan2, "stargan2": _stargan2}[name](small, changes)


def batch(name: str, subject, size: int, step: int = 0):
    """Return `size` random images for the step of a trainer."""
    if name == "stargan2":
        from paddle_sam.stargan2.domains import DomainBatch

        side = subject.options.img_size
        domains = np.arange(size) % 2
        faces = [uniform((size, 3, side, side), 3 * step + index) for index in range(3)]
        return DomainBatch(faces[0], domains, faces[1], faces[2], 1 - domains)
    side = subject.network.input_size if name == "sam" else subject.options.resolution
    images = uniform((size, 3, side, side), step)
    return Batch(images, None, tuple(Path(str(index)) for index in range(size)))


def ranger_steps() -> np.ndarray:
    """Return weights after 20 steps of Ranger down random gradients, on Paddle's device."""
    network = _weights()
    optimizer = Ranger(1e-3, groups_by_layout(network.parameters()))
    rng = np.random.default_rng(1)
    for _ in range(20):
        for parameter in network.parameters():
            gradient = paddle.to_tensor(rng.standard_normal(parameter.shape, np.float32))
            (parameter * gradient).sum().backward()
        optimizer.step()
        optimizer.clear_grad(set_to_zero=False)
    return np.concatenate([parameter.numpy().ravel() for parameter in network.parameters()])


def averages() -> np.ndarray:
    """Return the averages of weights that have moved 20 times, on Paddle's device."""
    network = _weights()
    average, rng = averaged_copy(network), np.random.default_rng(1)
    for _ in range(20):
        for parameter in network.parameters():
            moved = parameter.numpy() + 0.01 * rng.standard_normal(parameter.shape, np.float32)
            parameter.set_value(moved.astype(np.float32))
        update_average(average, network, 0.9)
    return np.concatenate([parameter.numpy().ravel() for parameter in average.parameters()])


def _weights() -> nn.Layer:
    network, rng = nn.Sequential(nn.Conv2D(8, 40, 3), nn.Linear(30, 20)), np.random.default_rng(0)
    for parameter in network.parameters():
        parameter.set_value(0.05 * rng.standard_normal(parameter.shape, np.float32))
    return network


def forget_peak() -> None:
    """Let `peak` begin anew; Paddle before 3 cannot."""
    reset = getattr(paddle.device.cuda, "reset_max_memory_allocated", None)
    if reset is not None and paddle.get_device() != "cpu":
        reset()


def peak() -> float:
    """Return the most memory used, GB: of the GPU since `forget_peak`, or of this process."""
    if paddle.get_device() == "cpu":
        return timing.peak_memory_gb()
    return round(paddle.device.cuda.max_memory_allocated() / 1e9, 2)


def _wait() -> None:
    if paddle.get_device() != "cpu":  # which has nothing to wait for
        paddle.device.synchronize()


# Methods of each trainer that are timed; StyleGAN2's is called once a phase.
STAGES = {
    "sam": ("_encode", "_backward", "update"),
    "stylegan2": ("_update",),
}


class Stages:
    """Times calls of methods of an object; a call waits for the device before and after."""

    def __init__(self, subject, *methods: str):
        self._found: dict[str, list[tuple[float, float]]] = {}
        for name in methods:
            setattr(subject, name, self._timed(name, getattr(subject, name)))

    def _timed(self, name: str, method):
        def call(*arguments, **named):
            phase = arguments[0].loss.__name__ if name == "_update" else name.lstrip("_")
            forget_peak()
            _wait()
            start = time.perf_counter()
            result = method(*arguments, **named)
            _wait()
            row = time.perf_counter() - start, peak()
            self._found.setdefault(phase, []).append(row)
            return result

        return call

    def found(self) -> list[tuple[str, float, float]]:
        """Return for each stage its name, the median seconds of a call, and its peak memory."""
        medians = {
            stage: (float(np.median([seconds for seconds, _ in rows])), max(m for _, m in rows))
            for stage, rows in self._found.items()
        }
        return [(stage, *numbers) for stage, numbers in medians.items()]


def _sam(small: bool, changes: dict):
    from benchmarks.train_step import build_trainer
    from paddle_sam.ageing.losses import LossWeights, SAMLoss
    from paddle_sam.ageing.train.options import SAMOptions
    from paddle_sam.ageing.train.trainer import Assembled, SAMTrainer
    from paddle_sam.networks.face_networks import AgeRegressor
    from paddle_sam.networks.sam import build_sam

    changes = {"batch_size": 4, "learning_rate": 1e-6, **changes}  # low, for random networks
    if not small:
        return build_trainer("published", **{"decoder_batch": 0, **changes})
    encoder = {"input_size": 64, "n_styles": 8, "style_dim": 32, "stem": 8}
    encoder |= {"widths": [32, 32, 32, 32], "units": [1, 1, 1, 1]}
    decoder = {"size": 32, "style_dim": 32, "mapping_layers": 2}
    decoder["channels"] = dict.fromkeys((4, 8, 16, 32), 8)
    arch = {"encoder": {**encoder, "in_channels": 4}, "decoder": decoder}
    arch |= {"pretrained_encoder": {**encoder, "in_channels": 3}, "start": "encoded_w_plus"}
    network = build_sam(**arch)
    freeze(network.decoder, network.pretrained_encoder)
    given = {"start_from_encoded_w_plus": True, "use_weighted_id_loss": True, "output_size": 32}
    judges = (LPIPS(), FaceEmbedder(32, units=(1, 1, 1, 1)), AgeRegressor(32, [4] * 5, 8))
    loss = SAMLoss(LossWeights(), *judges, network.latent_avg, weigh_identity=True)
    return SAMTrainer(Assembled(network, arch, None), loss, SAMOptions(**given, **changes))


def _stylegan2(small: bool, changes: dict):
    from paddle_sam.stylegan2.train.growth import Archs
    from paddle_sam.stylegan2.train.options import StyleGAN2Options
    from paddle_sam.stylegan2.train.trainer import StyleGAN2Trainer

    options = StyleGAN2Options(resolution=256, path_interval=2, r1_interval=2)
    if small:
        tiny = {"resolution": 32, "latent_dim": 16, "mapping_layers": 2}
        tiny |= {"channel_base": 512, "channel_max": 16, "r1_gamma": 0.1}
        options = dataclasses.replace(options, **tiny)
    options = dataclasses.replace(options, **{"batch_size": 4, **changes})
    return StyleGAN2Trainer(Archs.of_options(options), options)


def _stargan2(small: bool, changes: dict):
    from paddle_sam.stargan2.options import StarGAN2Options
    from paddle_sam.stargan2.trainer import StarGAN2Trainer, ValidationSet

    options = StarGAN2Options(w_hpf=0.0, no_fid=True, no_lpips=True)
    if small:
        tiny = {"img_size": 32, "latent_dim": 4, "hidden_dim": 16, "style_dim": 8}
        tiny |= {"max_conv_dim": 16, "base_dim": 8}
        options = dataclasses.replace(options, **tiny)
    options = dataclasses.replace(options, **{"batch_size": 4, **changes})
    side = options.img_size
    held_out = np.zeros((2, side, side, 3), np.uint8)
    validation = ValidationSet(held_out, np.array([0, 1]), np.array([0, 1]))
    return StarGAN2Trainer(options, None, validation)
