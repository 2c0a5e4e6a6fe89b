"""Run published code on the recipe's weights and keep what it computes:

    python -m tests.parity.make_reference e4e /path/to/encoder4editing

writes `manifests/KIND.json`, the names and shapes of the tensors that the published code saves, and
`expected/KIND.npz`, what it computes with the recipe's values in their place, on a CPU, and the
commit that it is of. Kinds, and the repositories they need, are in `KINDS`. ReStyle needs
torchvision as well, of which only Python code is used: `--torchvision FOLDER`.

The compiled operations of these repositories are replaced by formulas written here.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import re
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tests.parity import recipe, reference_gans

HERE = Path(__file__).resolve().parent
CODES = slice(None, None, 8)  # of each code's 512 numbers, those that are kept


class FusedLeakyReLU(nn.Module):
    """Bias and leaky ReLU with gain sqrt(2)."""

    def __init__(self, channels, bias=True, negative_slope=0.2, scale=2**0.5):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None
        self.arguments = negative_slope, scale

    def forward(self, x):
        return fused_leaky_relu(x, self.bias, *self.arguments)


def fused_leaky_relu(x, bias=None, negative_slope=0.2, scale=2**0.5):
    if bias is not None:
        x = x + bias.reshape(1, -1, *[1] * (x.ndim - 2))
    return F.leaky_relu(x, negative_slope) * scale


def upfirdn2d(x, kernel, up=1, down=1, pad=(0, 0)):
    """Insert zeros, pad, convolve with the FIR filter, keep every `down`-th pixel."""
    n, channels, height, width = x.shape
    spread = x.new_zeros(n, channels, height * up, width * up)
    spread[:, :, ::up, ::up] = x
    spread = F.pad(spread, (pad[0], pad[1], pad[0], pad[1]))
    weight = kernel.flip(0, 1)[None, None].expand(channels, 1, -1, -1)
    return F.conv2d(spread, weight, groups=channels)[:, :, ::down, ::down]


def replace_compiled_operations() -> None:
    """Put what is above in the place of modules that compile CUDA code when imported."""
    gradfix = types.SimpleNamespace(conv2d=F.conv2d, conv_transpose2d=F.conv_transpose2d)
    for name in ("models.stylegan2.op", "op"):
        module = types.ModuleType(name)
        module.FusedLeakyReLU, module.fused_leaky_relu = FusedLeakyReLU, fused_leaky_relu
        module.upfirdn2d, module.conv2d_gradfix = upfirdn2d, gradfix
        sys.modules[name] = module
    sys.modules["matplotlib"] = types.ModuleType("matplotlib")
    sys.modules["matplotlib"].use = lambda backend: None


def offer_torchvision(folder: Path) -> None:
    """Make torchvision's Python code importable: its compiled operations become mere names."""
    source = (folder / "torchvision" / "_meta_registrations.py").read_text()
    names = re.findall(r'torchvision::(\w+)"|register_meta\("(\w+)"', source)
    library = torch.library.Library("torchvision", "DEF")
    for name in {first or second for first, second in names}:
        library.define(f"{name}(Tensor x) -> Tensor")
    offer_torchvision.library = library  # as long as it lives, so do the names
    sys.path.append(str(folder))
    resnet = importlib.import_module("torchvision.models.resnet")
    build = resnet.resnet34
    resnet.resnet34 = lambda pretrained=False: build()  # the recipe's values come later
    sys.modules["torchvision.models"].resnet34 = resnet.resnet34


# What a training stores of its options, as far as recognising and running need it.
E4E = {"stylegan_size": 1024, "start_from_latent_avg": True, "input_nc": 3}
PSP = {
    **{"output_size": 1024, "start_from_latent_avg": True, "learn_in_w": False},
    **{"label_nc": 0, "input_nc": 3},
}
RESTYLE = {
    **{"output_size": 256, "start_from_latent_avg": True, "input_nc": 6, "n_iters_per_batch": 5},
    **{"dataset_type": "church_encode", "resize_outputs": True},
}
LAST = "BackboneEncoderUsingLastLayerInto"
# Kind -> module and class of the published network, `encoder_type` and the other options.
ENCODERS = {
    "e4e": ("models.psp:pSp", "Encoder4Editing", E4E),
    "psp_w": ("models.psp:pSp", LAST + "W", {**PSP, "learn_in_w": True}),
    "psp_w_plus": ("models.psp:pSp", LAST + "WPlus", PSP),
    "psp_drawing": ("models.psp:pSp", "GradualStyleEncoder", {**PSP, "label_nc": 1, "input_nc": 1}),
    "psp_labels": (
        "models.psp:pSp",
        "GradualStyleEncoder",
        {**PSP, "label_nc": 19, "input_nc": 19},
    ),
    "restyle_psp": ("models.psp:pSp", "BackboneEncoder", {**RESTYLE, "output_size": 1024}),
    "restyle_psp_resnet": ("models.psp:pSp", "ResNetBackboneEncoder", RESTYLE),
    "restyle_pyramid_resnet": ("models.psp:pSp", "ResNetGradualStyleEncoder", RESTYLE),
    "restyle_e4e": ("models.e4e:e4e", "ProgressiveBackboneEncoder", RESTYLE),
}


def encoder(kind: str) -> tuple[dict, dict]:
    """Run an encoder of pSp's family on two images; return the results and its manifest."""
    place, encoder_type, options = ENCODERS[kind]
    module, _, name = place.partition(":")
    build = getattr(importlib.import_module(module), name)
    stored = {**options, "encoder_type": encoder_type}
    load_weights, build.load_weights = build.load_weights, lambda self: None
    opts = argparse.Namespace(**stored, device="cpu", checkpoint_path=None)
    state = build(opts).state_dict()
    codes = 2 * int(math.log2(options.get("output_size") or options["stylegan_size"])) - 2
    manifest = {
        **{"checkpoint": kind, "wrap": "state_dict", "opts": stored},
        **unlike("psp_ffhq_encode", listed(state)),
        "extra": {"latent_avg": [1 if options.get("learn_in_w") else codes, 512]},
    }
    write_manifest(kind, manifest)
    build.load_weights = load_weights
    with tempfile.TemporaryDirectory() as folder:
        opts.checkpoint_path = f"{folder}/{kind}.pt"
        torch.save(recipe.torch_checkpoint(kind), opts.checkpoint_path)
        network = build(opts).eval()
    x = torch.from_numpy(recipe.images(options["input_nc"] if options["input_nc"] != 6 else 3))
    if options["input_nc"] == 6:
        images, codes = refined(network, opts, x)
    else:
        images, codes = network(x, randomize_noise=False, return_latents=True)
    results = {
        "codes": codes.numpy()[..., CODES],
        "images": F.adaptive_avg_pool2d(images, 32).numpy(),
    }
    return results, manifest


def refined(network, opts, x) -> tuple[torch.Tensor, torch.Tensor]:
    """What ReStyle's own loop arrives at: images [N, 3, 256, 256] and codes [N, L, 512]."""
    run = importlib.import_module("utils.inference_utils").run_on_batch
    start = network.latent_avg.unsqueeze(0)
    average = network(start, input_code=True, randomize_noise=False, average_code=True)[0]
    images, codes = run(x, network, opts, average)
    last = [torch.from_numpy(np.stack([codes[n][-1] for n in range(len(x))]))]
    return torch.stack([images[n][-1] for n in range(len(x))]), last[0]


def paddlegan(kind: str, checkout: Path) -> dict[str, np.ndarray]:
    """Run PaddleGAN's code with the Paddle that is here."""
    import paddle

    from tests.parity.reference_paddlegan import PADDLEGAN as RUNS

    with paddle.no_grad():
        found, manifest = RUNS[kind](checkout)
    write_manifest(kind, manifest)
    return found


def listed(state) -> list:
    """Names, shapes and types of tensors, as manifests have them."""
    return [[n, list(t.shape), str(t.dtype).removeprefix("torch.")] for n, t in state.items()]


def unlike(name: str, tensors: list) -> dict:
    """Tensors as another manifest's, and what is different."""
    base = {entry[0]: entry for entry in recipe.manifest(name)["tensors"]}
    own = [entry for entry in tensors if base.get(entry[0]) != entry]
    present = {entry[0] for entry in tensors}
    absent = {other for other in base if other not in present}
    groups = {".".join(other.split(".")[:2]) + "." for other in absent}
    whole = {g for g in groups if not any(other.startswith(g) for other in present)}
    left = {other for other in absent if not other.startswith(tuple(whole))}
    return {"like": name, "without": sorted(whole | left), "tensors": own}


def write_manifest(kind: str, manifest: dict) -> None:
    text = json.dumps(manifest, separators=(",", ":"))
    (HERE / "manifests" / f"{kind}.json").write_text(text + "\n")


def commit(checkout: Path) -> str:
    found = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout.strip()


PADDLEGAN = ("stylegan2_256", "psp_1024", "starganv2", "lpips")
KINDS = {
    **dict.fromkeys(ENCODERS, encoder),
    **dict.fromkeys(reference_gans.NVIDIA, reference_gans.nvidia),
    **dict.fromkeys(reference_gans.TENSORFLOW, reference_gans.tensorflow),
    **{f"paddlegan_{name}": None for name in PADDLEGAN},  # which runs Paddle, not PyTorch
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--torchvision", type=Path)
    chosen = parser.parse_args()
    if chosen.kind.startswith("paddlegan"):
        found = paddlegan(chosen.kind, chosen.checkout)
    else:
        replace_compiled_operations()
        if chosen.torchvision:
            offer_torchvision(chosen.torchvision)
        sys.path.insert(0, str(chosen.checkout))
        with torch.no_grad():
            found, manifest = KINDS[chosen.kind](chosen.kind)
        if manifest:
            write_manifest(chosen.kind, manifest)
    for name, array in found.items():
        print(name, array.shape, "deviation", float(array.std()))
        between = np.abs(array[0] - array[1]).mean() if len(array) > 1 else 0
        print("    between the two inputs", float(between))
    target = HERE / "expected" / f"{chosen.kind}.npz"
    np.savez_compressed(target, **found, commit=commit(chosen.checkout))
    print(f"written: {target}, {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
