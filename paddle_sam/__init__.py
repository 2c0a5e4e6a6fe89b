"""Face ageing (SAM), StyleGAN2 and StarGAN v2 in PaddlePaddle.

`load` and `AgePipeline` are imported when first used, so that `import paddle_sam` is instant.
"""

__version__ = "0.1.0"
__all__ = ["AgePipeline", "load"]


def __getattr__(name: str):
    if name == "load":
        from paddle_sam.networks.load import load

        return load
    if name == "AgePipeline":
        from paddle_sam.ageing.pipeline import AgePipeline

        return AgePipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
