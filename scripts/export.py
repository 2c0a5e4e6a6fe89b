"""Write an ageing network as Paddle inference models, and as ONNX files on request.

Four models with a dynamic batch: pretrained_encoder (RGB [N, 3, S, S] to the codes that a face
starts from), encoder (RGB and the plane of age / 100, [N, 4, S, S], to offsets), decoder (codes
[N, L, D] to images) and mapping (z [N, D] to w [N, D]). --onnx needs paddle2onnx and onnxruntime,
and fails if one of its models differs from Paddle's.

    python scripts/export.py --exp_dir exported
    python scripts/export.py --exp_dir exported --onnx \\
        --checkpoint_path pretrained_models/sam_ffhq_aging.pdparams
"""

from paddle_sam.core.command import script

main = script(
    __doc__,
    "paddle_sam.ageing.options:ExportOptions",
    "paddle_sam.ageing.export:export",
)

if __name__ == "__main__":
    raise SystemExit(main())
