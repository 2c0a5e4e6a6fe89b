"""What NVIDIA's and PaddleGAN's code computes with the recipe's weights; see `make_reference`."""

from __future__ import annotations

import contextlib
import importlib
import pickle
import tempfile
from pathlib import Path

import numpy as np

from tests.parity import nvidia_files, recipe

# Kind -> image size, image channels, classes, channel base, mapping layers; as the presets of
# stylegan2-ada-pytorch: paper1024, auto at 256 and cifar.
NVIDIA = {
    "nvidia_1024": (1024, 3, 0, 32768, 8),
    "nvidia_grey_256": (256, 1, 0, 16384, 2),
    "nvidia_conditional_256": (256, 3, 3, 16384, 2),
    "nvidia_cifar10": (32, 3, 10, 32768, 2),
}
TENSORFLOW = {"tensorflow_256": 0, "tensorflow_conditional_256": 3}
STYLE_AMOUNT = 4.0  # of what `style_direction` is added
TINY_FILE = Path(__file__).resolve().parents[1] / "fixtures" / "weights" / "nvidia_tiny.pkl"


def labels(classes: int) -> np.ndarray | None:
    """Of two samples: one class, and a mixture of two."""
    if not classes:
        return None
    found = np.zeros((2, classes), np.float32)
    found[0, 1], found[1, :2] = 1, (0.25, 0.75)
    return found


def latents(dimensions: int = 512) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=7)).standard_normal((2, dimensions), np.float32)


def style_direction() -> np.ndarray:
    """A direction in style space as StyleCLIP has it at 1024 px: sparse, 1 at most, without RGB."""
    values = np.random.Generator(np.random.Philox(key=11)).standard_normal(6048, np.float32)
    values[np.abs(values) < 1] = 0
    return values / np.abs(values).max()


def nvidia(kind: str) -> tuple[dict, dict]:
    """Return the results and the manifest of networks of stylegan2-ada-pytorch."""
    return _run_nvidia(*_arguments(kind))


def styleclip(kind: str) -> tuple[dict, dict]:
    """Let StyleCLIP's code (global_torch) move the styles of two faces of NVIDIA's 1024 px."""
    import torch

    manipulate = importlib.import_module("manipulate")
    networks = importlib.import_module("training.networks")
    g = _filled(networks.Generator(**_arguments("nvidia_1024")[0]).eval().requires_grad_(False))
    manipulate.legacy.load_network_pkl = lambda stream: {"G_ema": g}
    manipulate.dnnlib.util.open_url = lambda path: contextlib.nullcontext()
    mover = manipulate.Manipulator()
    mover.device, mover.G = "cpu", manipulate.LoadModel("", "cpu")
    mover.SetGParameters()
    styles = g.synthesis.W2S(g.mapping(torch.from_numpy(latents()), None))
    mover.dlatents = manipulate.S2List(styles)
    mover.num_images, mover.alpha = 2, [STYLE_AMOUNT]
    offsets = importlib.import_module("StyleCLIP").SplitS(style_direction(), mover, if_std=False)
    moved = mover.MSCode(mover.dlatents, offsets)
    images = [
        g.synthesis(
            None,
            encoded_styles=mover.SL2D([layer[face] for layer in moved]),
            **{"noise_mode": "const", "force_fp32": True},
        )
        for face in range(2)
    ]
    return {"images": torch.nn.functional.adaptive_avg_pool2d(torch.cat(images), 32).numpy()}, {}


def _arguments(kind: str) -> tuple[dict, dict]:
    size, channels, classes, base, layers = NVIDIA[kind]
    generator = {
        **{"z_dim": 512, "c_dim": classes, "w_dim": 512},
        **{"img_resolution": size, "img_channels": channels},
        "mapping_kwargs": {"num_layers": layers},
        "synthesis_kwargs": {
            **{"channel_base": base, "channel_max": 512, "num_fp16_res": 4, "conv_clamp": 256}
        },
    }
    discriminator = {
        **{"c_dim": classes, "img_resolution": size, "img_channels": channels},
        **{"channel_base": base, "channel_max": 512, "num_fp16_res": 4, "conv_clamp": 256},
        **({"architecture": "orig"} if kind == "nvidia_cifar10" else {}),
        "epilogue_kwargs": {"mbstd_group_size": 4},
    }
    return generator, discriminator


def nvidia_tiny(kind: str) -> tuple[dict, dict]:
    """Keep a small conditional, grey network as that code pickles it, without the code in it."""
    small = {"channel_base": 64, "channel_max": 8}
    shape = {"c_dim": 2, "img_resolution": 16, "img_channels": 1}
    mapping = {"num_layers": 2, "lr_multiplier": 0.02}
    networks = importlib.import_module("training.networks")
    g = networks.Generator(
        z_dim=8, w_dim=8, **shape, mapping_kwargs=mapping, synthesis_kwargs=small
    )
    d = networks.Discriminator(**shape, **small, mapping_kwargs=mapping)
    g, d = (_filled(network.eval().requires_grad_(False)) for network in (g, d))
    for value in vars(networks).values():
        if hasattr(value, "_orig_module_src"):
            value._orig_module_src = ""
    content = {"G": g, "D": d, "G_ema": g, "training_set_kwargs": None, "augment_pipe": None}
    TINY_FILE.write_bytes(pickle.dumps(content))
    assert b"Copyright" not in TINY_FILE.read_bytes()
    return _results(g, d, every=1), {}


def _run_nvidia(generator: dict, discriminator: dict) -> tuple[dict, dict]:
    networks = importlib.import_module("training.networks")
    g = _filled(networks.Generator(**generator).eval().requires_grad_(False))
    d = _filled(networks.Discriminator(**discriminator).eval().requires_grad_(False))
    manifest = {
        **{"G_kwargs": generator, "D_kwargs": discriminator},
        **{"G_ema": _listed(g), "D": _listed(d)},
    }
    _check_writer(g, d, manifest)
    return _results(g, d), manifest


def _results(g, d, every: int = 8) -> dict:
    import torch

    x = torch.from_numpy(recipe.images(g.img_channels, max(g.img_resolution, 16)))
    wanted = labels(g.c_dim)
    wanted = None if wanted is None else torch.from_numpy(wanted)
    z = torch.from_numpy(latents(g.z_dim))
    w = g.mapping(z, wanted, skip_w_avg_update=True)[:, 0]
    image = g.synthesis(g.mapping(z, wanted), noise_mode="const", force_fp32=True)
    kept = min(32, g.img_resolution)
    middle = slice(g.img_resolution // 2 - kept // 2, g.img_resolution // 2 + kept // 2)
    return {
        "w": w.numpy()[:, ::every],
        "images": torch.nn.functional.adaptive_avg_pool2d(image, kept).numpy(),
        "crop": image[:, :, middle, middle].numpy(),
        "scores": d(x, wanted, force_fp32=True).numpy(),
    }


def _listed(network) -> list:
    return [[name, list(tensor.shape)] for name, tensor in network.state_dict().items()]


def _filled(network):
    import torch

    for name, tensor in network.state_dict().items():
        tensor.copy_(torch.from_numpy(nvidia_files.value(name, tuple(tensor.shape))))
    return network


def _check_writer(g, d, manifest: dict) -> None:
    """Raise unless `nvidia_files` writes what NVIDIA's code does, as far as the reader sees it."""
    from paddle_sam.convert.nvidia_pickle import read_pickle

    with tempfile.TemporaryDirectory() as folder:
        theirs, ours = Path(folder, "theirs.pkl"), Path(folder, "ours.pkl")
        easy_dict = importlib.import_module("dnnlib").EasyDict
        content = {"G": g, "D": d, "G_ema": g, "training_set_kwargs": easy_dict(path="x")}
        theirs.write_bytes(pickle.dumps({**content, "augment_pipe": None}))
        nvidia_files.write(ours, networks_of(manifest))
        left, right = read_pickle(theirs), read_pickle(ours)
    assert left.keys() - {"g"} == right.keys()
    for part in ("g_ema", "d"):
        assert left.get(part, {}).keys() == right.get(part, {}).keys()
        for name, array in left.get(part, {}).items():
            np.testing.assert_array_equal(array, right[part][name])


def networks_of(manifest: dict) -> dict:
    """The content of a pickle with the networks that a manifest lists, filled by the recipe."""
    import torch

    content = {}
    for key, kind in (("G_ema", "Generator"), ("D", "Discriminator")):
        tensors = {
            name: torch.from_numpy(nvidia_files.value(name, tuple(shape)))
            for name, shape in manifest[key]
        }
        kwargs = manifest[f"{key[0]}_kwargs"]
        content[key] = nvidia_files.PersistentModule(tensors, kind, **kwargs)
    return content


def tensorflow(kind: str) -> tuple[dict, dict]:
    """Return what networks of TensorFlow compute, by NVIDIA's converter of them."""
    legacy = importlib.import_module("legacy")
    easy_dict = importlib.import_module("dnnlib").EasyDict

    def stub(network):
        state = dict(network.state)
        parts = {name: stub(part) for name, part in state["components"].items()}
        return easy_dict({**state, "components": parts})

    _, d, averaged = nvidia_files.tensorflow_networks(256, TENSORFLOW[kind])
    g = legacy.convert_tf_generator(stub(averaged))
    return _results(g, legacy.convert_tf_discriminator(stub(d))), {}
