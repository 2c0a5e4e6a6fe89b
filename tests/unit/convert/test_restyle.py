"""ReStyle: its encoder reads a photograph and what the last code renders, several times."""

import numpy as np
import paddle
import pytest
import torch

import paddle_sam
from paddle_sam.ageing.project import _inverter
from paddle_sam.convert.convert import convert_file, revert_file
from paddle_sam.core.weights import NetworkEntry, WeightFile
from paddle_sam.errors import CheckpointError
from paddle_sam.networks.sam import build_sam, pool
from tests import DEVICE

ENCODER = {
    **{"input_size": 32, "in_channels": 6, "n_styles": 8, "style_dim": 16, "stem": 4},
    **{"widths": [16] * 4, "units": [1] * 4, "squeeze_excite": True, "pyramid": False},
}
DECODER = {
    "size": 32,
    "style_dim": 16,
    "mapping_layers": 2,
    "channels": dict.fromkeys((4, 8, 16, 32), 8),
    "fir": [1.0, 3.0, 3.0, 1.0],
}


@pytest.fixture
def checkpoint(tmp_path):
    """Return a function that writes a torch checkpoint with options of ReStyle."""
    paddle.seed(0)
    arch = {"encoder": ENCODER, "decoder": DECODER, "start": "latent_avg"}
    network = build_sam(**arch)
    network.latent_avg.set_value(np.random.default_rng(0).normal(size=(8, 16)).astype("float32"))
    file = WeightFile("psp", {"psp": NetworkEntry.of("sam", arch, network)})
    file.write(tmp_path / "x.pdparams")
    revert_file(tmp_path / "x.pdparams", tmp_path / "x.pt")

    def write(**options):
        content = torch.load(tmp_path / "x.pt", weights_only=True)
        torch.save({**content, "opts": options}, tmp_path / "restyle.pt")
        report = convert_file(tmp_path / "restyle.pt", tmp_path / "restyle.pdparams")
        return tmp_path / "restyle.pdparams", report.notes

    return write


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize(
    ("encoder_type", "progressive"),
    [("BackboneEncoder", False), ("ProgressiveBackboneEncoder", True)],
)
def test_every_step_adds_what_the_encoder_finds(checkpoint, encoder_type, progressive, steps):
    path, notes = checkpoint(encoder_type=encoder_type, n_iters_per_batch=steps)
    assert notes == []
    network = paddle_sam.load(path, device=DEVICE)
    assert network.encoder.progressive is progressive
    x = paddle.to_tensor(np.random.default_rng(1).uniform(-1, 1, (2, 3, 32, 32)), "float32")
    with paddle.no_grad():
        codes = network.latent_avg.expand([2, -1, -1])
        for _ in range(steps):
            noise = network.decoder.noises.as_list()
            image = network.decoder([codes], input_is_latent=True, noise=noise)
            both = paddle.concat([x, pool(image, 32)], axis=1)
            offsets = [style(_features(network.encoder, both)) for style in network.encoder.styles]
            if progressive:
                offsets = [offsets[0], *[offsets[0] + offset for offset in offsets[1:]]]
            codes = codes + paddle.stack(offsets, axis=1)
        found = _inverter(path).encode(x)
    np.testing.assert_allclose(found.numpy(), codes.numpy(), rtol=1e-4, atol=1e-4)


def _features(encoder, x):
    return encoder.body(encoder.input_layer(x))


def test_steps_that_are_not_stated_are_five(checkpoint):
    path, notes = checkpoint(encoder_type="BackboneEncoder")
    assert paddle_sam.load(path, device=DEVICE).iterations == 5
    assert any("n_iters_per_batch is not stated" in note for note in notes)


@pytest.mark.parametrize("steps", [0, 10**6, "many"])
def test_absurd_steps_are_refused(checkpoint, steps):
    with pytest.raises(CheckpointError, match="n_iters_per_batch: expected 1 to 100"):
        checkpoint(encoder_type="BackboneEncoder", n_iters_per_batch=steps)
