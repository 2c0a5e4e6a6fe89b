"""What a checkpoint states decides; what it leaves out is concluded, said, or refused."""

import lzma

import numpy as np
import paddle
import pytest
import torch

import paddle_sam
from convert.convert_weights import main as convert_weights
from paddle_sam.convert.convert import convert_file, convert_files, revert_file
from paddle_sam.core.weights import WeightFile, state_of
from paddle_sam.errors import CheckpointError
from paddle_sam.export.static_networks import StaticEncoder
from tests import DEVICE, ROOT


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Return the content of a small torch checkpoint of a kind."""
    folder = tmp_path_factory.mktemp("published")

    def content(kind):
        path = folder / f"{kind}.pt"
        if not path.exists():
            packed = ROOT / "tests" / "fixtures" / "weights" / f"{kind}.pdparams.xz"
            path.with_suffix(".pdparams").write_bytes(lzma.decompress(packed.read_bytes()))
            file = WeightFile.read(path.with_suffix(".pdparams"))
            rng = np.random.default_rng(0)
            for entry in file.networks.values():  # a constant encoder would show nothing
                for name, array in entry.state.items():
                    if array.ndim > 1 and not name.endswith(("kernel", "latent_avg")):
                        fan = array[0].size if array.ndim > 2 else len(array)
                        noise = rng.normal(0, fan**-0.5, array.shape)
                        entry.state[name] = noise.astype("float32")
            file.write(path.with_suffix(".pdparams"))
            revert_file(path.with_suffix(".pdparams"), path)
        return torch.load(path, weights_only=True)

    return content


@pytest.fixture
def converted(tmp_path):
    """Return the weight file of a content, and the notes of its conversion."""

    def convert(content, name="x"):
        torch.save(content, tmp_path / f"{name}.pt")
        report = convert_file(tmp_path / f"{name}.pt", tmp_path / f"{name}.pdparams")
        return tmp_path / f"{name}.pdparams", report.notes

    return convert


def images():
    return paddle.to_tensor(np.random.default_rng(1).uniform(-1, 1, (2, 3, 32, 32)), "float32")


def codes_of(path):
    with paddle.no_grad():
        return paddle_sam.load(path, device=DEVICE).encode(images()).numpy()


def with_options(content, **options):
    return {**content, "opts": {**content["opts"], **options}}


def test_e4e_adds_its_first_code_to_all_others(published, converted):
    content = published("psp")
    psp, notes = converted(with_options(content, encoder_type="GradualStyleEncoder"), "psp")
    e4e, _ = converted(with_options(content, encoder_type="Encoder4Editing"), "e4e")
    assert notes == []
    average = content["latent_avg"].numpy()
    offsets = codes_of(psp) - average
    expected = offsets + average
    expected[:, 1:] += offsets[:, :1]
    found = codes_of(e4e)
    assert np.abs(offsets[:, :1]).max() > 0.05
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    encoder = paddle_sam.load(e4e, device=DEVICE).encoder
    static = StaticEncoder(encoder)
    static.eval()
    with paddle.no_grad():
        np.testing.assert_allclose(
            static(images()).numpy() + average, expected, rtol=1e-4, atol=1e-4
        )
    revert_file(e4e, e4e.with_suffix(".back"))
    assert torch.load(e4e.with_suffix(".back"))["opts"]["encoder_type"] == "Encoder4Editing"


@pytest.mark.parametrize("kind", ["HyperEncoder", "MyEncoder", 3])
def test_an_unknown_encoder_is_refused_by_name(published, converted, kind):
    with pytest.raises(CheckpointError, match=f"encoder_type is {kind}; supported are .*Encoder4"):
        converted(with_options(published("psp"), encoder_type=kind))


@pytest.mark.parametrize("opts", [None, {}, {"exp_dir": "a"}])
def test_a_sam_that_states_no_start_uses_its_frozen_encoder(published, converted, opts):
    content = published("sam")
    whole, _ = converted({**content}, "whole")
    bare = {k: v for k, v in content.items() if k != "opts"} | ({"opts": opts} if opts else {})
    path, notes = converted(bare, "bare")
    assert any("taken for encoded_w_plus" in note for note in notes)
    assert WeightFile.read(path).entry().arch == WeightFile.read(whole).entry().arch


def test_a_psp_that_states_no_start_uses_the_average(published, converted):
    content = published("psp")
    del content["opts"]
    path, notes = converted(content)
    assert WeightFile.read(path).entry().arch["start"] == "latent_avg"
    assert any("encoder_type is not stated" in note for note in notes)


def test_missing_noises_are_drawn_always_the_same(published, converted):
    content = published("stylegan2")
    content["g_ema"] = {k: v for k, v in content["g_ema"].items() if "noises" not in k}
    path, notes = converted(content)
    assert any("no noises" in note for note in notes)
    state = WeightFile.read(path).entry("g_ema").state
    assert state["noises.noise_2"].shape == (1, 1, 8, 8)
    first = np.random.RandomState(0).standard_normal((1, 1, 4, 4)).astype("float32")
    np.testing.assert_array_equal(state["noises.noise_0"], first)
    revert_file(path, path.with_suffix(".back"))
    assert torch.load(path.with_suffix(".back"))["g_ema"].keys() == content["g_ema"].keys()


def test_latent_avg_is_needed_only_where_codes_start_from_it(published, converted):
    content = {k: v for k, v in published("psp").items() if k != "latent_avg"}
    unused = with_options(content, start_from_latent_avg=False)
    path, notes = converted(unused, "zero")
    assert not any("latent_avg" in note for note in notes)
    assert not WeightFile.read(path).entry().state["latent_avg"].any()
    path, notes = converted(content, "estimated")
    assert any("no latent_avg: estimated" in note for note in notes)
    network = paddle_sam.load(path, device=DEVICE)
    z = np.random.default_rng(0).standard_normal((20_000, 16)).astype("float32")
    mean = network.decoder.style(paddle.to_tensor(z)).mean(axis=0).numpy()
    np.testing.assert_allclose(network.latent_avg.numpy()[0], mean, atol=0.05)
    np.testing.assert_array_equal(network.latent_avg[0].numpy(), network.latent_avg[-1].numpy())
    absent, _ = converted({**content, "latent_avg": None}, "absent")
    left, right = (WeightFile.read(file).entry().state["latent_avg"] for file in (path, absent))
    np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(
    ("average", "found"),
    [
        (torch.zeros(3), r"float32 \[3\]"),
        (torch.zeros(2, 16), r"float32 \[2, 16\]"),
        (torch.full([16], float("nan")), r"float32 \[16\]"),
        (torch.zeros(16, dtype=torch.int64), "ndarray"),
        ("mean", "str"),
        ([0.0] * 16, "list"),
    ],
)
def test_a_latent_avg_that_cannot_be_one_is_refused(published, converted, average, found):
    for kind in ("psp", "stylegan2"):
        with pytest.raises(CheckpointError, match=f"latent_avg: expected finite .*found {found}"):
            converted({**published(kind), "latent_avg": average})


@pytest.mark.parametrize("kind", ["sam", "psp", "dex_vgg", "stylegan2"])
def test_the_prefix_of_a_parallel_training_is_taken_off(published, converted, kind):
    content = published(kind)
    key = "g_ema" if kind == "stylegan2" else "state_dict"
    wrapped = {**content, key: {f"module.{k}": v for k, v in content[key].items()}}
    plain, _ = converted(content, "plain")
    path, _ = converted(wrapped, "parallel")
    for name, array in WeightFile.read(plain).entry().state.items():
        np.testing.assert_array_equal(WeightFile.read(path).entry().state[name], array, name)
    revert_file(path, path.with_suffix(".back"))
    assert torch.load(path.with_suffix(".back"))[key].keys() == wrapped[key].keys()


@pytest.mark.parametrize("key", [None, "state_dict"])
@pytest.mark.parametrize("part", ["g_ema", "d"])
def test_a_lone_generator_or_discriminator(published, converted, key, part):
    content = published("stylegan2")
    lone = content[part] if key is None else {key: content[part]}
    path, _ = converted(lone)
    file = WeightFile.read(path)
    assert (file.kind, list(file.networks)) == ("stylegan2", [part])
    found = state_of(paddle_sam.load(path, device=DEVICE))
    whole, _ = converted(content, "whole")
    for name, array in WeightFile.read(whole).entry(part).state.items():
        np.testing.assert_array_equal(found[name], array)
    revert_file(path, path.with_suffix(".back"))
    back = torch.load(path.with_suffix(".back"))
    assert (back if key is None else back[key]).keys() == content[part].keys()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.full([16], float("inf")), "style.1.bias holds NaN or infinity"),
        (torch.full([16], float("nan")), "style.1.bias holds NaN or infinity"),
        (torch.zeros(16, dtype=torch.complex64), "style.1.bias is of type complex64"),
        ("text", "expected a tensor as style.1.bias, found str"),
    ],
)
def test_weights_that_are_not_finite_numbers_are_refused(published, converted, value, words):
    content = published("stylegan2")
    content["g_ema"]["style.1.bias"] = value
    with pytest.raises(CheckpointError, match=words):
        converted(content)


def test_training_state_of_e4e_is_not_carried(published, tmp_path):
    content = published("psp") | {
        "discriminator_state_dict": {"w": torch.zeros(9)},
        "optimizer": {},
    }
    torch.save(content, tmp_path / "a.pt")
    (report,) = convert_files([str(tmp_path / "a.pt")])
    assert report.not_carried == ["optimizer", "discriminator_state_dict"]


def test_explain_says_what_and_why_and_writes_nothing(published, tmp_path, capsys):
    content = {k: v for k, v in published("psp").items() if k not in ("latent_avg", "opts")}
    torch.save(content | {"optimizer": {}}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(b"no")
    assert convert_weights(["--explain", str(tmp_path / "b.pt"), str(tmp_path / "a.pt")]) == 1
    said = capsys.readouterr()
    assert "b.pt: not a PyTorch file" in said.err
    for words in (
        "a.pt: psp",
        "psp: sam, ",
        "encoder_type is not stated: taken for GradualStyleEncoder",
        "no latent_avg: estimated",
        "not carried over: optimizer",
        "keys: arch, state_dict",
    ):
        assert words in said.out, words
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "b.pt"]
