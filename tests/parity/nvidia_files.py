"""NVIDIA's pickles as their code writes them, without that code, and values for their tensors."""

from __future__ import annotations

import collections
import contextlib
import pickle
import sys
import types
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_BUFFERS = ("resample_filter", "noise_const", "w_avg")


def _torch_modules() -> dict[str, types.ModuleType]:
    """The modules that pickles of stylegan2-ada-pytorch name, enough to write one."""
    persistence = types.ModuleType("torch_utils.persistence")
    exec("def _reconstruct_persistent_obj(meta): raise AssertionError('run')", vars(persistence))
    util = types.ModuleType("dnnlib.util")
    exec("class EasyDict(dict): pass", vars(util))
    persistence._reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    util.EasyDict.__module__ = "dnnlib.util"
    return {
        "torch_utils": types.ModuleType("torch_utils"),
        "torch_utils.persistence": persistence,
        "dnnlib": types.ModuleType("dnnlib"),
        "dnnlib.util": util,
    }


class TensorFlowNetwork:
    """Pickles as `dnnlib.tflib.network.Network` does."""

    def __init__(self, variables: Mapping, components: Mapping | tuple = (), **options):
        self.state = {
            "version": 4,
            "name": "G",
            "static_kwargs": options,
            "components": dict(components),
            "build_module_src": "raise SystemExit('the file was executed')",
            "build_func_name": "G_main",
            "variables": list(variables.items()),
        }

    def __getstate__(self):
        return self.state

    def __setstate__(self, state):
        raise AssertionError("made by NVIDIA's class")


TensorFlowNetwork.__module__ = "dnnlib.tflib.network"
TensorFlowNetwork.__qualname__ = TensorFlowNetwork.__name__ = "Network"


class PersistentModule:
    """Pickles as a network decorated with NVIDIA's `persistent_class` does.

    Args:
        tensors: torch tensors by dotted name.
        class_name: of the original.
        kwargs: what its constructor was given.
    """

    def __init__(self, tensors: Mapping, class_name: str = "Generator", **kwargs):
        self.tensors, self.class_name, self.kwargs = tensors, class_name, kwargs

    def __reduce__(self):
        import torch

        here = {n: v for n, v in self.tensors.items() if "." not in n}
        below: dict = {}
        for name, value in self.tensors.items():
            if "." in name:
                child, rest = name.split(".", 1)
                below.setdefault(child, {})[rest] = value
        easy_dict = sys.modules["dnnlib.util"].EasyDict
        state = {
            "training": False,
            "_parameters": collections.OrderedDict(
                (n, torch.nn.Parameter(v)) for n, v in here.items() if n not in _BUFFERS
            ),
            "_buffers": collections.OrderedDict((n, v) for n, v in here.items() if n in _BUFFERS),
            "_non_persistent_buffers_set": set(),
            "_backward_hooks": collections.OrderedDict(),
            "_modules": collections.OrderedDict(
                (n, PersistentModule(t, "Layer")) for n, t in below.items()
            ),
            "_init_args": (),
            "_init_kwargs": easy_dict({"z_dim": 128, "dtype": torch.float32, **self.kwargs}),
            "img_resolution": 64,
        }
        meta = {
            "type": "class",
            "version": 6,
            "module_src": "raise AssertionError('the source in the file was executed')",
            "class_name": self.class_name,
            "state": state,
        }
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,)


@contextlib.contextmanager
def _importable(modules: Mapping):
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def write(path: Path, content, protocol: int = 4) -> Path:
    """Pickle `content`, in which `PersistentModule` and `TensorFlowNetwork` stand for networks."""
    tflib = types.ModuleType("dnnlib.tflib.network")
    tflib.Network = TensorFlowNetwork
    modules = _torch_modules() | {"dnnlib.tflib": types.ModuleType("dnnlib.tflib")}
    with _importable({**modules, "dnnlib.tflib.network": tflib}):
        path.write_bytes(pickle.dumps(content, protocol))
    return path


def value(name: str, shape: tuple[int, ...], seed: int = 0, lr_mul: float = 0.01) -> np.ndarray:
    """The recipe's value for a tensor of NVIDIA's, PyTorch's or TensorFlow's names.

    All their weights are scaled when the network runs, so nearly all have unit variance here.

    Args:
        lr_mul: that of a mapping network, by which its weights are multiplied.
    """
    if name.endswith("resample_filter"):
        return (np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64).astype(np.float32)
    rng = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(name.encode())]))
    x = np.asarray(rng.standard_normal(shape, dtype=np.float32), np.float32)
    layer, leaf = (
        name.replace("/", ".").split(".")[-2:] if "." in name or "/" in name else ("", name)
    )
    mapping = layer.startswith(("fc", "Dense", "Mapping")) and "mapping" in name.lower()
    scale, offset = 1.0, 0.0
    if leaf in ("noise_strength", "w_avg", "dlatent_avg", "mod_bias"):
        scale = 0.1
    elif layer == "affine" and leaf == "bias":
        scale, offset = 0.1, 1.0
    elif leaf == "bias":
        scale = 0.05 / lr_mul if mapping else 0.05
    elif leaf == "mod_weight" or (layer == "affine" and leaf == "weight"):
        scale = 0.3
    elif mapping:
        scale = 1 / lr_mul
    return np.asarray(np.float32(offset) + np.float32(scale) * x, np.float32)


def tensorflow_shapes(size: int, classes: int = 0) -> tuple[dict, dict, dict, dict]:
    """Names and shapes of a config-f network's variables: mapping, synthesis, whole, D."""
    mapping, synthesis, critic = {}, {"lod": ()}, {"lod": ()}
    for layer in range(8):
        width = 1024 if layer == 0 and classes else 512
        mapping |= {f"Dense{layer}/weight": (width, 512), f"Dense{layer}/bias": (512,)}
    if classes:
        mapping |= {"LabelEmbed/weight": (classes, 512), "LabelEmbed/bias": (512,)}
        critic |= {"LabelEmbed/weight": (classes, 512), "LabelEmbed/bias": (512,)}
        for layer in range(2):
            critic |= {f"Mapping{layer}/weight": (512, 512), f"Mapping{layer}/bias": (512,)}
    synthesis["4x4/Const/const"] = (1, 512, 4, 4)
    width, before, side = {s: min(32768 // s, 512) for s in (4, 8, 16, 32, 64, 128, 256)}, 512, 4
    while side <= size:
        here, square = width[side], f"{side}x{side}"
        layers = [("Conv", before, here)] if side == 4 else [("Conv0_up", before, here)]
        layers += [] if side == 4 else [("Conv1", here, here)]
        for name, inputs, outputs in [*layers, ("ToRGB", here, 3)]:
            kernel = 1 if name == "ToRGB" else 3
            synthesis[f"{square}/{name}/weight"] = (kernel, kernel, inputs, outputs)
            synthesis[f"{square}/{name}/bias"] = (outputs,)
            synthesis[f"{square}/{name}/mod_weight"] = (512, inputs)
            synthesis[f"{square}/{name}/mod_bias"] = (inputs,)
            if name != "ToRGB":
                synthesis[f"{square}/{name}/noise_strength"] = ()
                # 0 at 4x4, 1 and 2 at 8x8, ...
                index = 2 * side.bit_length() - (7 if name == "Conv0_up" else 6)
                synthesis[f"noise{index}"] = (1, 1, side, side)
        if side > 4:
            critic[f"{square}/Conv0/weight"] = (3, 3, here, here)
            critic[f"{square}/Conv0/bias"] = (here,)
            critic[f"{square}/Conv1_down/weight"] = (3, 3, here, before)
            critic[f"{square}/Conv1_down/bias"] = (before,)
            critic[f"{square}/Skip/weight"] = (1, 1, here, before)
        before, side = here, 2 * side
    critic[f"{size}x{size}/FromRGB/weight"] = (1, 1, 3, width[size])
    critic[f"{size}x{size}/FromRGB/bias"] = (width[size],)
    critic |= {"4x4/Conv/weight": (3, 3, 513, 512), "4x4/Conv/bias": (512,)}
    critic |= {"4x4/Dense0/weight": (8192, 512), "4x4/Dense0/bias": (512,)}
    outputs = 512 if classes else 1
    critic |= {"Output/weight": (512, outputs), "Output/bias": (outputs,)}
    return mapping, synthesis, {"dlatent_avg": (512,)}, critic


def tensorflow_networks(size: int, classes: int = 0) -> tuple:
    """(G, D, Gs) of such networks, filled by the recipe."""
    mapping, synthesis, whole, critic = tensorflow_shapes(size, classes)

    def filled(shapes, prefix="", lr_mul=0.01):
        return {n: value(prefix + n, s, lr_mul=lr_mul) for n, s in shapes.items()}

    def generator():
        parts = {
            "mapping": TensorFlowNetwork(filled(mapping, "mapping/")),
            "synthesis": TensorFlowNetwork(filled(synthesis, "synthesis/")),
        }
        options = {"resolution": size, "label_size": classes, "fmap_base": 16384}
        return TensorFlowNetwork(filled(whole), parts, **options)

    options = {"resolution": size, "label_size": classes, "fmap_base": 16384}
    options |= {"mapping_layers": 2} if classes else {}
    return generator(), TensorFlowNetwork(filled(critic, lr_mul=0.1), **options), generator()
