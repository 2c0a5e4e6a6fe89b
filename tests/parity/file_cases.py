"""Files of every kind that converts, as their projects save them, beside what those compute.

The cases of `cases` have files of PyTorch in the layout of SAM and its parts; these have the other
encoders, NVIDIA's pickles and PaddleGAN's files. `make_reference` made what they are compared with.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F

import paddle_sam
from paddle_sam.ageing.edits import as_styles, shifted_styles, style_parts
from paddle_sam.convert.convert import convert_file
from paddle_sam.networks.sam import without_margins
from paddle_sam.networks.stylegan2 import modulated_layers
from tests import DEVICE
from tests.parity import nvidia_files, recipe
from tests.parity.cases import (
    FULL,
    SINGLE,
    Comparison,
    compare,
    convert_published,
    expected,
    tensor,
)
from tests.parity.reference_gans import (
    STYLE_AMOUNT,
    TENSORFLOW,
    labels,
    latents,
    networks_of,
    style_direction,
)

ENCODERS = (
    *("e4e", "psp_w", "psp_w_plus", "psp_drawing", "psp_labels"),
    *("restyle_psp_resnet", "restyle_pyramid_resnet", "restyle_cars"),
    *("e4e_w", "restyle_psp", "restyle_e4e"),
)
# With these float32 does not determine the last digits: the tolerance is what a nudge of the pixels
# changes, times ALLOWANCE.
NUDGED = {"restyle_psp": 1e-6, "restyle_e4e": 1e-6}
BATCHES = ("e4e", "psp_w", *NUDGED)  # of two images; of the others the first is enough
ALLOWANCE = 3.0


def encoders(kind: str, folder: Path) -> Iterator[Comparison]:
    """An encoder of pSp's family, and what its codes render."""
    want = expected(kind)
    network = convert_published(kind, folder)
    channels = network.encoder.in_channels
    x = tensor(recipe.images(3 if channels == 6 else channels))
    if kind not in BATCHES:
        x, want = x[:1], {name: array[:1] for name, array in want.items() if array.ndim}
    codes, images = _inverted(network, x)
    tolerances = {"codes": FULL, "images": FULL}
    if kind in NUDGED:
        for way in (paddle.sign(x), -paddle.sign(x), paddle.ones_like(x)):
            moved = _inverted(network, x + NUDGED[kind] * way)
            for name, found, other in zip(tolerances, (codes, images), moved, strict=True):
                floor = np.abs((found - other).numpy()).max() / want[name].std()
                tolerances[name] = max(tolerances[name], ALLOWANCE * float(floor))
    yield compare(kind, "w+", codes, want["codes"], tolerances["codes"])
    yield compare(kind, "images, pooled to 32", images, want["images"], tolerances["images"])


def _inverted(network, x: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
    rows, size = network.encoder.rows, network.input_size
    codes = network.encode(without_margins(x, rows, size))
    images = without_margins(network.decode(codes, randomize_noise=False)[0], rows, size)
    return codes[..., ::8], F.adaptive_avg_pool2d(images, 32)


def hyperstyle(kind: str, folder: Path) -> Iterator[Comparison]:
    """HyperStyle from a given code: the tuned generator's image, and its offsets."""
    want = expected(kind)
    network = convert_published(kind, folder)
    x, start = tensor(recipe.images()[:1]), tensor(recipe.codes()[:1]) + network.latent_avg
    *_, (image, tuned) = network.tune(x, start)
    layers = list(zip(modulated_layers(tuned), modulated_layers(network.decoder), strict=True))
    changed = [layers[number] for number in sorted(map(int, network.hypernet.refinement_blocks))]
    offsets = [
        (new.weight / old.weight - 1)[3 % len(old.weight), :16, 0, -1].numpy()
        for (_, new), (_, old) in changed
    ]
    yield compare(kind, "offsets of weights", np.array(offsets), want["offsets"][0], FULL)
    images = F.adaptive_avg_pool2d(image, 32)
    yield compare(kind, "images, pooled to 32", images, want["images"][:1], FULL)


def nvidia(kind: str, folder: Path) -> Iterator[Comparison]:
    """Networks of stylegan2-ada-pytorch, from their pickle."""
    content = networks_of(recipe.manifest(kind))
    yield from _gan(kind, nvidia_files.write(folder / "net.pkl", content), folder)


def tensorflow(kind: str, folder: Path) -> Iterator[Comparison]:
    """Networks of TensorFlow's StyleGAN2, beside what NVIDIA's converter makes of them."""
    content = nvidia_files.tensorflow_networks(256, TENSORFLOW[kind])
    yield from _gan(kind, nvidia_files.write(folder / "net.pkl", content, 2), folder)


def _gan(kind: str, source: Path, folder: Path) -> Iterator[Comparison]:
    want = expected(kind)
    file = folder / "net.pdparams"
    convert_file(source, file)
    source.unlink()
    g = paddle_sam.load(file, device=DEVICE)
    wanted = labels(getattr(g, "classes", 0))
    wanted = None if wanted is None else tensor(wanted)
    w = g.map_latents(tensor(latents()), wanted)
    yield compare(kind, "mapping z -> w", w[:, ::8], want["w"])
    codes = w.unsqueeze(1).expand([-1, g.n_codes, -1])
    image = g([codes], input_is_latent=True, randomize_noise=False)
    images = F.adaptive_avg_pool2d(image, want["images"].shape[-1])
    yield compare(kind, "synthesis, pooled", images, want["images"], FULL)
    half = want["crop"].shape[-1] // 2
    middle = slice(g.size // 2 - half, g.size // 2 + half)
    yield compare(kind, "synthesis, crop", image[:, :, middle, middle], want["crop"], FULL)
    if kind == "nvidia_1024":  # of which StyleCLIP moves the styles
        direction = as_styles(style_direction(), style_parts(g, range(g.n_codes)))
        with shifted_styles(g, STYLE_AMOUNT * direction):
            image = g([codes], input_is_latent=True, randomize_noise=False)
        images, moved = F.adaptive_avg_pool2d(image, 32), expected("styleclip")["images"]
        yield compare("styleclip", "styles moved, pooled to 32", images, moved, FULL)
    if kind != "nvidia_cifar10":  # whose discriminator has another architecture and is left out
        d = paddle_sam.load(file, part="d", device=DEVICE)
        x = tensor(recipe.images(d.image_channels, d.size))
        scores = d(x) if wanted is None else d(x, wanted)
        # Two scores differ little; at 1024 27 convolutions add up in them.
        tolerance = FULL if d.size == 1024 else SINGLE
        yield compare(kind, "scores of 2 images", scores, want["scores"], tolerance)
    file.unlink()


def paddlegan_stylegan2(kind: str, folder: Path) -> Iterator[Comparison]:
    """A checkpoint of a training of PaddleGAN's, as its trainer writes it."""
    want, manifest = expected(kind), recipe.manifest(kind)
    content = {part: _paddle_state(manifest[part]) for part in ("gen_ema", "disc")}
    content["optimG"] = {"linear_0.w_0_moment1_0": np.zeros(3, "f4"), "LR_Scheduler": {}}
    networks = _converted(content, folder, "g_ema", "d")
    w = networks["g_ema"].map_latents(tensor(latents()))
    yield compare(kind, "mapping z -> w", w[:, ::8], want["w"])
    images = networks["g_ema"]([tensor(latents())], randomize_noise=False)
    yield compare(kind, "images, pooled", F.adaptive_avg_pool2d(images, 32), want["images"], FULL)
    scores = networks["d"](tensor(recipe.images()))
    yield compare(kind, "scores of 2 images", scores, want["scores"])


def paddlegan_psp(kind: str, folder: Path) -> Iterator[Comparison]:
    """The file of PaddleGAN's pSp predictor: everything in one dict."""
    want, manifest = expected(kind), recipe.manifest(kind)
    content = {**_paddle_state(manifest["tensors"]), "opts": manifest["opts"]}
    network = _converted(content, folder, "psp")["psp"]
    codes = network.encode(tensor(recipe.images()))
    yield compare(kind, "w+", codes[..., ::8], want["codes"], FULL)
    images = F.adaptive_avg_pool2d(network.decode(codes, randomize_noise=False)[0], 32)
    yield compare(kind, "images, pooled to 32", images, want["images"], FULL)


def paddlegan_stargan2(kind: str, folder: Path) -> Iterator[Comparison]:
    """PaddleGAN's StarGAN v2, a file for each network."""
    want, manifest = expected(kind), recipe.manifest(kind)
    (folder / "nets").mkdir()
    for part in manifest:
        state = {n: paddle.to_tensor(a) for n, a in _paddle_state(manifest[part]).items()}
        paddle.save(state, str(folder / "nets" / f"{part}.pdparams"))
    convert_file(folder / "nets", folder / "nets.pdparams")
    networks = {
        part: paddle_sam.load(folder / "nets.pdparams", part=part, device=DEVICE)
        for part in manifest
    }
    x, domain = tensor(recipe.images()), paddle.to_tensor([1, 1])
    styles = networks["mapping_network"](tensor(latents(16)), domain)
    yield compare(kind, "mapping network z -> s", styles, want["mapped"])
    yield compare(kind, "style encoder", networks["style_encoder"](x, domain), want["encoded"])
    images = F.adaptive_avg_pool2d(networks["generator"](x, styles), 32)
    yield compare(kind, "generator, no masks, pooled", images, want["images"])
    yield compare(kind, "discriminator", networks["discriminator"](x, domain), want["scores"])


def paddlegan_lpips(kind: str, folder: Path) -> Iterator[Comparison]:
    """PaddleGAN's LPIPS as one layer, and its channel weights as a file of their own."""
    from paddle_sam.networks.image_features import load_lpips

    want, manifest = expected(kind), recipe.manifest(kind)
    state = _paddle_state(manifest["tensors"])
    lins = {n.removeprefix("lins."): a for n, a in state.items() if n.startswith("lins.")}
    features = {
        f"features.{n.removeprefix('net.vgg16.vgg_layers.')}": a
        for n, a in state.items()
        if n.startswith("net.")
    }
    for name, content in {"whole": state, "lins": lins, "features": features}.items():
        _save(content, folder / f"{name}-theirs.pdparams")
        convert_file(folder / f"{name}-theirs.pdparams", folder / f"{name}.pdparams")
    left, right = (tensor(image[None]) for image in recipe.images(size=64))
    for what, files in {"whole": ("whole",), "in two files": ("features", "lins")}.items():
        network = load_lpips(*(folder / f"{file}.pdparams" for file in files))
        yield compare(kind, f"distance, {what}", network(left, right), want["distance"], SINGLE, 1)


def _paddle_state(listed: list) -> dict[str, np.ndarray]:
    return {name: recipe.paddle_tensor(name, tuple(shape)) for name, shape in listed}


def _save(content: dict, path: Path) -> None:
    def tensors(value):
        if isinstance(value, dict):
            return {name: tensors(item) for name, item in value.items()}
        return paddle.to_tensor(value) if isinstance(value, np.ndarray) else value

    paddle.save(tensors(content), str(path))


def _converted(content: dict, folder: Path, *parts: str) -> dict[str, paddle.nn.Layer]:
    _save(content, folder / "theirs.pdparams")
    convert_file(folder / "theirs.pdparams", folder / "ours.pdparams")
    return {
        part: paddle_sam.load(folder / "ours.pdparams", part=part, device=DEVICE) for part in parts
    }


def _of(case, kind: str):
    """The case of one kind, under its name."""

    def run(folder: Path) -> Iterator[Comparison]:
        return case(kind, folder)

    run.__name__ = kind
    return run


FILE_CASES = [
    *[_of(encoders, kind) for kind in ENCODERS],
    *[_of(hyperstyle, kind) for kind in ("hyperstyle", "hyperstyle_separable")],
    *[_of(nvidia, f"nvidia_{name}") for name in ("1024", "conditional_256", "grey_256", "cifar10")],
    *[_of(tensorflow, kind) for kind in TENSORFLOW],
    _of(paddlegan_stylegan2, "paddlegan_stylegan2_256"),
    _of(paddlegan_psp, "paddlegan_psp_1024"),
    _of(paddlegan_stargan2, "paddlegan_starganv2"),
    _of(paddlegan_lpips, "paddlegan_lpips"),
]
