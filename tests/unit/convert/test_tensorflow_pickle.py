"""NVIDIA's TensorFlow pickles, made here as that code pickles them, and read without it."""

import numpy as np
import pytest

from paddle_sam.convert.convert import convert_file
from paddle_sam.core.weights import WeightFile, find_weight
from paddle_sam.errors import CheckpointError
from tests.parity import nvidia_files
from tests.parity.nvidia_files import TensorFlowNetwork
from tests.unit.convert.test_nvidia_pickle import (
    nvidia_discriminator,
    nvidia_generator,
    rosinality,
)


def tensorflow_generator(g, latent_avg):
    """The variables of mapping, synthesis and the whole, from torch's, each written out."""
    torch_names = {name: tensor.numpy() for name, tensor in nvidia_generator(g, latent_avg).items()}
    mapping, synthesis = {}, {"lod": np.float32(0).reshape(())}
    noises = {}
    for name, array in torch_names.items():
        first, *rest = name.split(".")
        leaf = rest[-1]
        if first == "mapping" and leaf != "w_avg":
            layer = rest[0].replace("fc", "Dense")
            mapping[f"{layer}/{leaf}"] = array.T if leaf == "weight" else array
        elif first == "synthesis" and leaf == "const":
            synthesis["4x4/Const/const"] = array[None]
        elif first == "synthesis" and leaf != "resample_filter":
            size = int(rest[0][1:])
            up = rest[1] == "conv0"
            kinds = {
                "conv0": "Conv0_up",
                "conv1": "Conv1" if size > 4 else "Conv",
                "torgb": "ToRGB",
            }
            place = f"{size}x{size}/{kinds[rest[1]]}"
            if rest[2] == "affine":
                part = {"weight": "mod_weight", "bias": "mod_bias"}[leaf]
                synthesis[f"{place}/{part}"] = (
                    array.T if leaf == "weight" else array.astype("f4") - 1
                )
            elif leaf == "weight":
                array = np.flip(array, (2, 3)) if up else array
                synthesis[f"{place}/weight"] = np.moveaxis(array, (0, 1), (3, 2))
            elif leaf == "noise_const":
                noises[2 * int(np.log2(size)) - (5 if up else 4)] = array[None, None]
            else:
                synthesis[f"{place}/{leaf}"] = array
    synthesis |= {f"noise{index}": array for index, array in noises.items()}
    return mapping, synthesis, {"dlatent_avg": torch_names["mapping.w_avg"]}


def tensorflow_discriminator(d):
    result = {}
    for name, tensor in nvidia_discriminator(d).items():
        block, *rest = name.split(".")
        if rest[-1] == "resample_filter":
            continue
        size, array = int(block[1:]), tensor.numpy()
        layer = {
            **{"fromrgb": "FromRGB", "conv0": "Conv0", "conv1": "Conv1_down", "skip": "Skip"},
            **{"conv": "Conv", "fc": "Dense0", "out": "Output"},
        }[rest[0]]
        place = layer if layer == "Output" else f"{size}x{size}/{layer}"
        if array.ndim == 4:
            array = np.moveaxis(array, (0, 1), (3, 2))
        elif array.ndim == 2:
            array = array.T
        result[f"{place}/{rest[-1]}"] = array
    return result


@pytest.fixture
def write(tmp_path):
    def write(change=lambda g, d: None, protocol=2):
        content = rosinality()
        mapping, synthesis, whole = tensorflow_generator(content["g_ema"], content["latent_avg"])
        variables = tensorflow_discriminator(content["d"])
        change(synthesis, variables)

        def generator():
            parts = {"mapping": TensorFlowNetwork(mapping)}
            parts["synthesis"] = TensorFlowNetwork(synthesis)
            return TensorFlowNetwork(whole, parts, resample_kernel=[1, 3, 3, 1])

        networks = (generator(), TensorFlowNetwork(variables), generator())
        return nvidia_files.write(tmp_path / "net.pkl", networks, protocol)

    return write


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_it_becomes_the_file_of_the_torch_pickle(write, tmp_path, protocol):
    report = convert_file(write(protocol=protocol), tmp_path / "out.pdparams")
    assert report.kind == "stylegan2"
    found = WeightFile.read(tmp_path / "out.pdparams")
    want = WeightFile.read(find_weight("stylegan2_mini"))
    np.testing.assert_array_equal(found.latent_avg, want.latent_avg)
    for part in ("g_ema", "d"):
        assert found.networks[part].arch == want.networks[part].arch
        for name, array in want.networks[part].state.items():
            np.testing.assert_allclose(found.networks[part].state[name], array, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda g, d: g.pop("8x8/Conv1/bias"), "tensor synthesis/8x8/Conv1/bias is missing"),
        (lambda g, d: g.update({"8x8/X/w": np.zeros(1)}), "8x8/X/w has no place in StyleGAN2"),
        (lambda g, d: g.update({"4x4/StyleMod/w": np.zeros(1)}), "of StyleGAN, not of StyleGAN2"),
        (lambda g, d: g.update({"ToRGB_lod0/weight": np.zeros(1)}), "a network that grows"),
        (lambda g, d: g.update({"64x64/Conv1/bias": "x"}), "expected a tensor as synthesis/64x64"),
        (
            lambda g, d: [g.pop(n) for n in list(g) if n.startswith("16x16/")],
            r"expected blocks of 4.*\[4, 8, 32, 64\]",
        ),
    ],
)
def test_other_networks_are_refused_by_name(write, tmp_path, change, words):
    with pytest.raises(CheckpointError, match=f"net.pkl: .*{words}"):
        convert_file(write(change), tmp_path / "out.pdparams")
    assert not (tmp_path / "out.pdparams").exists()
