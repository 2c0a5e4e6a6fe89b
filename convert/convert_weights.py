"""Convert published PyTorch checkpoints to Paddle weight files, or with --reverse back.

What a file is, is told from what it states and from its keys: SAM, pSp, e4e and ReStyle with all
their encoders, StyleGAN2 (rosinality layout, or a pickle of NVIDIA's TensorFlow or PyTorch code),
StarGAN v2 (nets, nets_ema, wing.ckpt, celeba_lm_mean.npz), IR-SE50, CurricularFace, DEX VGG,
AlexNet or VGG16 features, LPIPS, Inception-v3; and what PaddleGAN and paddle-SAM save of these. A
folder with generator.*, mapping_network.* and style_encoder.* is a StarGAN v2.

Nothing in a file is executed. Every tensor is converted, or listed as dropped (counters of batch
norm, filter taps that the description holds); if one has no place, the file is refused and
nothing is written. PyTorch is needed here and nowhere else: pip install -e ".[convert]"

Exit status: 0 all converted, 1 some failed, 2 none.
Example: python convert/convert_weights.py pretrained_models/sam_ffhq_aging.pt
"""

from paddle_sam.core.command import script

main = script(
    __doc__,
    "paddle_sam.convert.options:ConvertOptions",
    "paddle_sam.convert.convert:convert_weights",
)

if __name__ == "__main__":
    raise SystemExit(main())
