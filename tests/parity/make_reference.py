"""Run published code on the recipe's weights and keep what it computes:

    python -m tests.parity.make_reference e4e /path/to/encoder4editing

writes `manifests/KIND.json`, the names and shapes of the tensors that the published code saves, and
`expected/KIND.npz`, what it computes with the recipe's values in their place, on a CPU, and the
commit that it is of. Kinds are in `KINDS`; `rosinality` and `sam` compare what is there already.
ReStyle and HyperStyle need torchvision as well, of which only Python code is used: `--torchvision
FOLDER`.

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
    for name in ("matplotlib", "matplotlib.pyplot", "clip"):
        sys.modules[name] = types.ModuleType(name)
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
# With the recipe's weights float32 does not determine more steps of IR-SE50 than one.
ONE_STEP = {**RESTYLE, "n_iters_per_batch": 1}
CARS = {**RESTYLE, "output_size": 512, "dataset_type": "cars_encode", "resize_outputs": False}
LAST = "BackboneEncoderUsingLastLayerInto"
# Kind -> module and class of the published network, `encoder_type` and the other options.
ENCODERS = {
    "e4e": ("models.psp:pSp", "Encoder4Editing", E4E),
    "e4e_w": ("models.psp:pSp", "SingleStyleCodeEncoder", E4E),
    "psp_w": ("models.psp:pSp", LAST + "W", {**PSP, "learn_in_w": True}),
    "psp_w_plus": ("models.psp:pSp", LAST + "WPlus", PSP),
    "psp_drawing": ("models.psp:pSp", "GradualStyleEncoder", {**PSP, "label_nc": 1, "input_nc": 1}),
    "psp_labels": (
        "models.psp:pSp",
        "GradualStyleEncoder",
        {**PSP, "label_nc": 19, "input_nc": 19},
    ),
    "restyle_psp": ("models.psp:pSp", "BackboneEncoder", ONE_STEP),
    "restyle_psp_resnet": ("models.psp:pSp", "ResNetBackboneEncoder", RESTYLE),
    "restyle_pyramid_resnet": ("models.psp:pSp", "ResNetGradualStyleEncoder", RESTYLE),
    "restyle_e4e": ("models.e4e:e4e", "ProgressiveBackboneEncoder", ONE_STEP),
    "restyle_cars": ("models.e4e:e4e", "ResNetProgressiveBackboneEncoder", CARS),
}


def with_recipe(kind: str, build: type, opts: argparse.Namespace) -> nn.Module:
    """Return the original network, which has read the recipe's weights by its own code."""
    with tempfile.TemporaryDirectory() as folder:
        opts.checkpoint_path = f"{folder}/{kind}.pt"
        torch.save(recipe.torch_checkpoint(kind), opts.checkpoint_path)
        return build(opts).eval()


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
    network = with_recipe(kind, build, opts)
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
    if "cars" in opts.dataset_type:
        x, average = x[:, :, 32:224], average[:, 32:224]
    images, codes = run(x, network, opts, average)
    last = [torch.from_numpy(np.stack([codes[n][-1] for n in range(len(x))]))]
    return torch.stack([images[n][-1] for n in range(len(x))]), last[0]


# The published HyperStyle changes all layers but RGB; the other kind is held at a few layers.
HYPERSTYLE = {
    **{"input_nc": 6, "dataset_type": "ffhq_hypernet", "n_iters_per_batch": 2},
    **{"w_encoder_type": "WEncoder", "load_w_encoder": False, "resize_outputs": False},
}
HYPERNETWORKS = {
    "hyperstyle": {
        **HYPERSTYLE,
        **{"encoder_type": "SharedWeightsHyperNetResNet", "output_size": 1024},
        "layers_to_tune": "0,2,3,5,6,8,9,11,12,14,15,17,18,20,21,23,24",
    },
    "hyperstyle_separable": {
        **HYPERSTYLE,
        **{"encoder_type": "SharedWeightsHyperNetResNetSeparable", "output_size": 256},
        "layers_to_tune": "14,15,16,17,18",
    },
}


def hyperstyle(kind: str) -> tuple[dict, dict]:
    """Let HyperStyle tune its generator for two images, from codes that are given."""
    torch.Tensor.cuda = lambda self: self
    stored = HYPERNETWORKS[kind]
    opts = argparse.Namespace(**stored, device="cpu", checkpoint_path=None)
    build = importlib.import_module("models.hyperstyle").HyperStyle
    load_weights, build.load_weights = build.load_weights, lambda self: None
    state = build(opts).state_dict()
    common = "hypernet.shared_weight_hypernet."
    repeats = [name for name in state if re.search(r"\d\.hypernet\.w1$", name)]
    once = {n: t for n, t in state.items() if not re.search(r"\d\.hypernet\.", n)}
    manifest = {
        **{"checkpoint": kind, "wrap": "state_dict", "opts": stored},
        **unlike("psp_ffhq_encode", listed(once)),
        "repeated": {common: [name.removesuffix("w1") for name in repeats]},
        "extra": {"latent_avg": [2 * int(math.log2(stored["output_size"])) - 2, 512]},
    }
    write_manifest(kind, manifest)
    build.load_weights = load_weights
    network = with_recipe(kind, build, opts)
    opts.load_w_encoder = True
    codes = torch.from_numpy(recipe.codes())
    network.w_encoder = nn.Identity()
    network.w_encoder.forward = lambda x: codes.expand(-1, network.n_styles, -1)
    run = importlib.import_module("utils.inference_utils").run_inversion
    images, _, offsets = run(torch.from_numpy(recipe.images()), network, opts, True)[:3]
    results = {
        "images": F.adaptive_avg_pool2d(torch.stack([images[n][-1] for n in (0, 1)]), 32).numpy(),
        "offsets": np.stack(
            [
                np.stack([o[3 % len(o), :16, 0, -1] for o in offsets[n][-1] if o is not None])
                for n in (0, 1)
            ]
        ),
    }
    return results, manifest


def rosinality(kind: str) -> tuple[dict, dict]:
    """Compute the expected values of rosinality's networks once more, and compare."""
    model = importlib.import_module("model")
    want = np.load(HERE / "expected" / "stylegan2_generator_1024.npz")
    g = model.Generator(1024, 512, 8).eval()
    g.load_state_dict(recipe.torch_checkpoint("stylegan2-ffhq-config-f")["g_ema"])
    w = g.style(torch.from_numpy(want["z"]))
    given = [torch.from_numpy(want["w_plus"])]
    image = g(given, input_is_latent=True, randomize_noise=False)[0]
    d = model.Discriminator(256).eval()
    d.load_state_dict(recipe.torch_checkpoint("stylegan2-discriminator-256")["d"])
    scored = np.load(HERE / "expected" / "stylegan2_discriminator_256.npz")
    same("w", w, want["w"])
    same("image", F.adaptive_avg_pool2d(image, 256), want["image_pool256"])
    same("crop", image[:, :, 500:564, 300:364], want["image_crop"])
    same("scores", d(torch.from_numpy(scored["x"].astype(np.float32))), scored["score"])
    return {}, {}


def sam(kind: str) -> tuple[dict, dict]:
    """Compute the expected values of SAM once more, and compare."""
    build = importlib.import_module("models.psp").pSp
    want = np.load(HERE / "expected" / "sam_1024.npz")
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/sam.pt"
        torch.save(recipe.torch_checkpoint("sam_ffhq_aging"), file)
        opts = argparse.Namespace(
            **{"output_size": 1024, "input_nc": 4, "device": "cpu", "checkpoint_path": file},
            **{"start_from_latent_avg": False, "start_from_encoded_w_plus": True},
            pretrained_psp_path=None,
        )
        network = build(opts).eval()
    face = torch.from_numpy(want["x"].astype(np.float32))
    same("frozen encoder", network.pretrained_encoder(face), want["pretrained_codes"])
    for index, age in enumerate(want["ages"]):
        x = torch.cat([face, torch.full_like(face[:, :1], age / 100)], 1)
        image, codes = network(x, resize=False, randomize_noise=False, return_latents=True)
        # The encoder amplifies what two machines round differently, as it does here.
        same(f"w+ at age {age}", codes[0], want["latents"][index], 1e-3)
        pooled = F.adaptive_avg_pool2d(image, 256)[0]
        same(f"image at age {age}", pooled, want["images_pool256"][index])
    return {}, {}


def same(name: str, found: torch.Tensor, want: np.ndarray, tolerance: float = 1e-4) -> None:
    """Raise unless what was computed is what is kept, to a share of its deviation or float16."""
    want32 = want.astype(np.float32)
    error = np.abs(found.numpy() - want32).max() / want32.std()
    print(f"{name}: {error:.1e}")
    assert error < (2e-3 if want.dtype == np.float16 else tolerance), name


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
CHECKS = {"rosinality": rosinality, "sam": sam}  # of expected values that are there already
KINDS = {
    **CHECKS,
    **dict.fromkeys(ENCODERS, encoder),
    **dict.fromkeys(HYPERNETWORKS, hyperstyle),
    **dict.fromkeys(reference_gans.NVIDIA, reference_gans.nvidia),
    "nvidia_tiny": reference_gans.nvidia_tiny,
    "styleclip": reference_gans.styleclip,  # its checkout's folder global_torch
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
    if chosen.kind in CHECKS:
        print(f"as the code of {commit(chosen.checkout)} computes it")
        return
    for name, array in found.items():
        print(name, array.shape, "deviation", float(array.std()))
        between = np.abs(array[0] - array[1]).mean() if len(array) > 1 else 0
        print("    between the two inputs", float(between))
    target = HERE / "expected" / f"{chosen.kind}.npz"
    np.savez_compressed(target, **found, commit=commit(chosen.checkout))
    print(f"written: {target}, {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
