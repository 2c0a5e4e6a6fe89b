"""Face ageing (SAM), StyleGAN2 and StarGAN v2 in PaddlePaddle.

Names are imported when they are first used, so that `import paddle_sam` is instant. docs/api.md
shows each at work.
"""

from importlib import import_module

__version__ = "0.2.0"

_PLACES = {
    "ageing.edits": ("Directions",),
    "ageing.pipeline": ("AgePipeline", "Aged"),
    "api": (
        "Inverted",
        "Projected",
        "Tuned",
        "animate",
        "invert",
        "mix",
        "project",
        "train",
        "train_age",
        "train_stargan2",
        "train_stylegan2",
        "tune",
    ),
    "core.weights": ("WeightFile",),
    "errors": (
        "CheckpointError",
        "ConfigError",
        "EngineError",
        "FaceNotFoundError",
        "ImageError",
        "OutputError",
        "PaddleSamError",
        "TrainingError",
    ),
    "faces.alignment": ("AlignedFace", "CropSettings"),
    "faces.paste": ("paste_back",),
    "metrics.judges": ("Judges",),
    "networks.load": ("load",),
    "stargan2.system": ("StarGAN2",),
    "stylegan2.generator": ("StyleGenerator",),
}
_MODULE_OF = {name: module for module, names in _PLACES.items() for name in names}
__all__ = sorted([*_MODULE_OF, "losses"])


def __getattr__(name: str):
    if name == "losses":
        return import_module("paddle_sam.losses")
    if name in _MODULE_OF:
        return getattr(import_module(f"paddle_sam.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
