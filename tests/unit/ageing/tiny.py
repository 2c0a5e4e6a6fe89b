"""Networks that take milliseconds: SAM, the pipeline around it, face recognition."""

from pathlib import Path

import numpy as np
import paddle

from paddle_sam.ageing.pipeline import AgePipeline
from paddle_sam.core.weights import NetworkEntry, WeightFile
from paddle_sam.faces.alignment import CropSettings
from paddle_sam.networks.face_networks import FaceEmbedder
from paddle_sam.networks.sam import SAM, GradualStyleEncoder
from paddle_sam.networks.stylegan2 import Generator

SIZE = 32
CHANNELS = dict.fromkeys((4, 8, 16, 32, 64, 128, 256), 4)


def tiny_sam(start="encoded_w_plus", pretrained=True, in_channels=4, output_size=SIZE) -> SAM:
    paddle.seed(0)
    arch = {"style_dim": 16, "stem": 4, "widths": (16, 16, 16, 16), "units": (1, 1, 1, 1)}
    arch |= {"squeeze_excite": False, "n_styles": 2 * output_size.bit_length() - 4}
    network = SAM(
        GradualStyleEncoder(SIZE, in_channels, **arch),
        Generator(output_size, 16, 1, CHANNELS),
        GradualStyleEncoder(SIZE, 3, **arch) if pretrained else None,
        start,
    )
    random = np.random.default_rng(0).normal(size=network.latent_avg.shape)
    network.latent_avg.set_value(random.astype("float32"))
    for layer in [network.decoder.conv1, *network.decoder.convs]:
        layer.noise.weight.set_value(np.array([0.05], np.float32))  # starts at 0
    network.eval()
    return network


def save_recognition(folder: Path) -> Path:
    """Write the weight file of a shallow face recognition network with random weights."""
    paddle.seed(2)
    arch = {"units": [1, 1, 1, 1], "squeeze_excite": False}
    state = {name: value.numpy() for name, value in FaceEmbedder(**arch).state_dict().items()}
    entry = NetworkEntry("face_embedder", arch, state)
    path = folder / "identity.pdparams"
    WeightFile("face_embedder", {"face_embedder": entry}).write(path)
    return path


def tiny_pipeline(**options) -> AgePipeline:
    return AgePipeline(tiny_sam(**options), CropSettings(SIZE, scale=0.6, offset=0.5))


def tiny_generator(size=SIZE, seed=0) -> Generator:
    """With an average code, and noise that shows."""
    paddle.seed(seed)
    generator = Generator(size, 16, 2, CHANNELS)
    random = np.random.default_rng(seed)
    generator.latent_avg = paddle.to_tensor(random.normal(size=16).astype("float32") / 4)
    for layer in [generator.conv1, *generator.convs]:
        layer.noise.weight.set_value(np.array([0.2], np.float32))
    generator.eval()
    return generator


def save_generator(path, generator: Generator, latent_avg=True) -> None:
    """Write a weight file in the layout of a training run's snapshots."""
    arch = {"size": generator.size, "style_dim": 16, "mapping_layers": 2}
    arch["channels"] = CHANNELS
    state = {name: value.numpy() for name, value in generator.state_dict().items()}
    entry = NetworkEntry("stylegan2_generator", arch, state)
    content = WeightFile("stylegan2", {"g_ema": entry})
    if latent_avg:
        content.latent_avg = generator.latent_avg.numpy()
    content.write(path)
