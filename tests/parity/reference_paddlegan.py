"""What PaddleGAN's code computes with the recipe's weights; see `make_reference`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path

import paddle
import paddle.nn.functional as F

from tests.parity import recipe
from tests.parity.reference_gans import latents

PSP = {
    **{"encoder_type": "GradualStyleEncoder", "input_nc": 3, "learn_in_w": False},
    **{"start_from_latent_avg": True, "output_size": 1024},
}
SIZES = {"size": 1024, "style_dim": 512, "n_mlp": 8, "channel_multiplier": 2}


def stylegan2(checkout: Path) -> tuple[dict, dict]:
    """The generator and the discriminator of 256 pixels that its configuration trains."""
    _offer(checkout)
    generators = importlib.import_module("ppgan.models.generators.generator_styleganv2")
    critics = importlib.import_module("ppgan.models.discriminators.discriminator_styleganv2")
    g, d = generators.StyleGANv2Generator(256, 512, 8), critics.StyleGANv2Discriminator(256)
    manifest = {"gen_ema": _filled(g), "disc": _filled(d)}
    z = paddle.to_tensor(latents())
    return {
        "w": g.style(z).numpy()[:, ::8],
        "images": F.adaptive_avg_pool2d(g([z], randomize_noise=False)[0], 32).numpy(),
        "scores": d(paddle.to_tensor(recipe.images())).numpy(),
    }, manifest


def psp(checkout: Path) -> tuple[dict, dict]:
    """Its pSp of 1024 pixels."""
    _offer(checkout)
    module = importlib.import_module("ppgan.models.generators.generator_pixel2style2pixel")
    network = module.Pixel2Style2Pixel(types.SimpleNamespace(**PSP, **SIZES))
    manifest = {"tensors": _filled(network), "opts": PSP}
    x = paddle.to_tensor(recipe.images())
    images, codes = network(x, randomize_noise=False, return_latents=True)
    return {
        "codes": codes.numpy()[..., ::8],
        "images": F.adaptive_avg_pool2d(images, 32).numpy(),
    }, manifest


def stargan2(checkout: Path) -> tuple[dict, dict]:
    """Its StarGAN v2 for CelebA-HQ, without masks."""
    _offer(checkout)
    module = importlib.import_module("ppgan.models.generators.generator_starganv2")
    critic = importlib.import_module("ppgan.models.discriminators.discriminator_starganv2")
    networks = {
        "generator": module.StarGANv2Generator(),
        "mapping_network": module.StarGANv2Mapping(),
        "style_encoder": module.StarGANv2Style(),
        "discriminator": critic.StarGANv2Discriminator(),
    }
    manifest = {part: _filled(network, part) for part, network in networks.items()}
    g, mapping, encoder, d = networks.values()
    x = paddle.to_tensor(recipe.images())
    # Its own choice of a domain's output does not run with tensors of no axis: domain 1 by hand.
    styles = mapping.unshared[1](mapping.shared(paddle.to_tensor(latents(16))))
    reference = encoder.unshared[1](encoder.shared(x).flatten(1))
    return {
        "mapped": styles.numpy(),
        "encoded": reference.numpy(),
        "images": F.adaptive_avg_pool2d(g(x, styles), 32).numpy(),
        "scores": d.main(x).flatten(1)[:, 1].numpy(),
    }, manifest


def lpips(checkout: Path) -> tuple[dict, dict]:
    """Its LPIPS, with VGG16."""
    _offer(checkout)
    perceptual = importlib.import_module("ppgan.models.criterions.perceptual_loss")
    perceptual.get_path_from_url = lambda url: url
    load, paddle.load = paddle.load, lambda path: {}
    module = importlib.import_module("ppgan.metrics.lpips")
    network = module.LPIPS(pretrained=False, verbose=False)
    paddle.load = load
    manifest = {"tensors": _filled(network, "lpips")}
    left, right = (paddle.to_tensor(image[None]) for image in recipe.images(size=64))
    return {"distance": network(left, right).numpy().reshape(-1)}, manifest


def _filled(network: paddle.nn.Layer, part: str = "") -> list:
    """Give a network the recipe's values, eval mode; return its tensors' names and shapes."""
    state = network.state_dict()
    network.eval()
    for name, tensor in state.items():
        if not name.startswith("scaling_layer"):
            tensor.set_value(recipe.paddle_tensor(name, tuple(tensor.shape)))
    return [[name, list(tensor.shape)] for name, tensor in state.items()]


def _offer(checkout: Path) -> None:
    """Make PaddleGAN's modules importable one by one, without all that the package imports."""
    for name in (
        *("", ".models", ".models.generators", ".models.discriminators", ".models.criterions"),
        *(".modules", ".utils", ".metrics"),
    ):
        package = types.ModuleType(f"ppgan{name}")
        package.__path__ = [str(checkout / f"ppgan{name}".replace(".", "/"))]
        sys.modules[f"ppgan{name}"] = package
    for name in ("munch", "cv2", "requests", "skimage.filters"):
        if importlib.util.find_spec(name.partition(".")[0]) is None:
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].Munch = types.SimpleNamespace


PADDLEGAN = {
    "paddlegan_stylegan2_256": stylegan2,
    "paddlegan_psp_1024": psp,
    "paddlegan_starganv2": stargan2,
    "paddlegan_lpips": lpips,
}
