"""Every tensor of every published checkpoint has its place, at full size, without its weight.

Arrays are broadcast from one zero, so that a 2 GB checkpoint takes no memory.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from paddle_sam.convert.recognise import recognise
from paddle_sam.convert.rules import to_paddle, to_torch
from paddle_sam.convert.tables import PSP_ENCODER, RESIDUAL_BODY, TABLES
from paddle_sam.core.weights import check_fit
from paddle_sam.errors import CheckpointError
from paddle_sam.networks.load import build_empty
from paddle_sam.networks.stylegan2_ops import fir_kernel
from tests import PARITY

MANIFESTS = PARITY / "manifests"
# Published file, kind, tensors dropped (batch norm counters and FIR filters).
PUBLISHED = [
    ("sam_ffhq_aging", "sam", 120),
    ("psp_ffhq_encode", "psp", 68),
    ("stylegan2-ffhq-config-f", "stylegan2", 16),
    ("stylegan2-discriminator-256", "stylegan2", 12),
    ("model_ir_se50", "ir_se50", 54),
    ("CurricularFace_Backbone", "curricularface", 104),
    ("dex_age_classifier", "dex_vgg", 0),
    ("alexnet_features", "lpips_features", 0),
    ("lpips_alex_lin", "lpips_lin", 0),
]


def published(name: str) -> dict:
    """Content of a published torch file, its tensors zero (filters as they are)."""
    manifest = json.loads((MANIFESTS / f"{name}.json").read_text())
    state = {}
    for tensor, shape, dtype in manifest["tensors"]:
        state[tensor] = np.broadcast_to(np.zeros((), dtype), shape)
        if tensor.endswith("kernel"):
            up = tensor.endswith(("upsample.kernel", "conv.blur.kernel"))
            state[tensor] = fir_kernel([1, 3, 3, 1], 4.0 if up else 1.0)
    if manifest["wrap"] is None:
        return state
    extra = {key: np.zeros(shape, np.float32) for key, shape in manifest.get("extra", {}).items()}
    options = {"opts": manifest["opts"]} if "opts" in manifest else {}
    return {manifest["wrap"]: state, **extra, **options}


def convert(content: dict):
    """The one network of a checkpoint, converted and fitted: (network, converted)."""
    checkpoint = recognise(content, Path("file.pt"))
    (network,) = checkpoint.networks.values()
    converted = to_paddle(network.state, TABLES[network.table], "file.pt")
    targets = build_empty(network.builder, network.arch).state_dict()
    check_fit(targets, converted.state | network.added, "file.pt")
    return checkpoint, network, converted


@pytest.mark.parametrize(("name", "kind", "dropped"), PUBLISHED)
def test_every_tensor_is_used_or_listed_as_dropped(name, kind, dropped):
    checkpoint, network, converted = convert(published(name))
    assert checkpoint.kind == kind
    assert len(converted.dropped) == dropped
    assert len(converted.state) + dropped == len(network.state)
    assert all(n.endswith(("num_batches_tracked", "kernel")) for n in converted.dropped)


@pytest.mark.parametrize(("name", "kind", "dropped"), PUBLISHED)
def test_the_way_back_gives_the_published_names_and_shapes(name, kind, dropped):
    _, network, converted = convert(published(name))
    back = to_torch(converted.state, TABLES[network.table]) | converted.dropped
    assert {n: a.shape for n, a in back.items()} == {n: a.shape for n, a in network.state.items()}


@pytest.mark.parametrize(("name", "kind", "dropped"), PUBLISHED)
@pytest.mark.parametrize("position", [0.0, 0.37, 0.71, 1.0])
def test_a_lost_tensor_is_named(name, kind, dropped, position):
    _, network, _ = convert(published(name))
    kept = [n for n in network.state if not n.endswith(("num_batches_tracked", "kernel"))]
    lost = kept[round(position * (len(kept) - 1))]
    content = published(name)
    del state_of(content)[lost]
    with pytest.raises(CheckpointError) as error:
        convert(content)
    # Named as in torch or, where the fit shows the loss, as in Paddle. A file without a tensor
    # that recognition goes by is a stranger.
    (target,) = to_paddle({lost: network.state[lost]}, TABLES[network.table], "").state
    message = str(error.value)
    assert lost in message or target in message or "another project" in message


def state_of(content):
    for key in ("state_dict", "g_ema", "d"):
        if key in content:
            return content[key]
    return content


@pytest.mark.parametrize(("name", "kind", "dropped"), PUBLISHED)
def test_a_stranger_among_the_tensors_is_named(name, kind, dropped):
    content = published(name)
    state = state_of(content)
    state["stranger.weight"] = np.zeros([3, 3], np.float32)
    with pytest.raises(CheckpointError, match="stranger"):
        convert(content)


@pytest.mark.parametrize(("name", "kind", "dropped"), PUBLISHED)
def test_a_wrong_shape_is_named(name, kind, dropped):
    content = published(name)
    state = state_of(content)
    wrong = [n for n in state if n.endswith("bias")][-1:] or [list(state)[-1]]
    state[wrong[0]] = np.zeros([*state[wrong[0]].shape, 7], np.float32)
    with pytest.raises(CheckpointError, match=r"of another shape|expected"):
        convert(content)


def test_a_foreign_filter_is_refused():
    content = published("stylegan2-ffhq-config-f")
    content["g_ema"]["convs.4.conv.blur.kernel"] = np.eye(4, dtype=np.float32)
    with pytest.raises(CheckpointError, match=r"convs\.4\.conv\.blur\.kernel"):
        convert(content)


def test_another_filter_is_carried_into_the_description():
    content = published("stylegan2-ffhq-config-f")
    for name in content["g_ema"]:
        if name.endswith("kernel"):
            content["g_ema"][name] = fir_kernel([1, 2, 1], 4.0)
    _, network, _ = convert(content)
    assert network.arch["fir"] == [1.0, 2.0, 1.0]


def test_published_architectures_are_read_from_the_tensors():
    _, network, _ = convert(published("sam_ffhq_aging"))
    encoder = network.arch["encoder"]
    assert (encoder["input_size"], encoder["in_channels"], encoder["n_styles"]) == (256, 4, 18)
    assert encoder["units"] == [3, 4, 14, 3]
    assert encoder["widths"] == [64, 128, 256, 512]
    assert network.arch["pretrained_encoder"] == {**encoder, "in_channels": 3}
    assert network.arch["decoder"]["channels"][1024] == 32
    assert network.arch["start"] == "encoded_w_plus"


def test_one_mean_latent_is_repeated_for_every_code():
    content = published("psp_ffhq_encode")
    content["latent_avg"] = np.arange(512, dtype=np.float32)
    _, network, _ = convert(content)
    assert network.added["latent_avg"].shape == (18, 512)
    assert (network.added["latent_avg"] == content["latent_avg"]).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: _remove(c, "pretrained_encoder."), "no pretrained_encoder"),
        (lambda c: _remove(c, "decoder."), "no decoder"),
        (lambda c: _remove(c, "encoder.body.23."), "another size needs an `arch` entry"),
    ],
)
def test_incomplete_sam_checkpoints_are_explained(change, words):
    content = published("sam_ffhq_aging")
    change(content)
    with pytest.raises(CheckpointError, match=words):
        convert(content)


def _remove(content, prefix):
    for name in [n for n in content["state_dict"] if n.startswith(prefix)]:
        del content["state_dict"][name]


def test_no_rule_is_shadowed():
    """Every rule of the encoder's table is the first match of some published tensor."""
    names = [n for n in state_of(published("sam_ffhq_aging")) if n.startswith("encoder.")]
    names = [n.removeprefix("encoder.") for n in names]
    used = {_first_match(name, PSP_ENCODER) for name in names}
    assert used == set(range(len(PSP_ENCODER)))
    assert len(RESIDUAL_BODY) == 5


def _first_match(name, rules):
    for index, rule in enumerate(rules):
        try:
            to_paddle({name: np.zeros([1, 1])}, [rule], "")
        except CheckpointError:
            continue
        return index
    raise AssertionError(name)
