"""Convert published PyTorch checkpoints to Paddle weight files, or with --reverse back."""

import argparse
import sys

from paddle_sam.core.command import command, exit_status

EPILOG = """\
What a file is, is told from what it states and from its keys: SAM, pSp, e4e, ReStyle, StyleGAN2
(rosinality layout, or a pickle of NVIDIA's stylegan2-ada-pytorch or stylegan3 repository),
StarGAN v2 (nets, nets_ema, wing.ckpt, celeba_lm_mean.npz), IR-SE50, CurricularFace, DEX VGG,
AlexNet or VGG16 features, LPIPS lin layers and the Inception-v3 of FID and of torchvision.

Nothing in a file is executed. Every tensor is converted, or listed as dropped (counters of batch
norm, filter taps that the description holds); if one has no place, the file is refused and
nothing is written. PyTorch is needed here and nowhere else: pip install -e ".[convert]"

Exit status: 0 all converted, 1 some failed, 2 none.
Example: python convert/convert_weights.py pretrained_models/sam_ffhq_aging.pt
"""


@command
def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="checkpoint to convert")
    parser.add_argument(
        "--output", metavar="DIR", help="folder for the results (default: beside each FILE)"
    )
    parser.add_argument(
        "--reverse",
        action="store_true",
        help="FILEs are .pdparams; write the .pt (.npz) that the reference code loads",
    )
    parser.add_argument(
        "--safetensors", action="store_true", help="with --reverse: write .safetensors"
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="say what each FILE is taken for and why, and write nothing",
    )
    parser.add_argument("--force", action="store_true", help="replace results that exist")
    args = parser.parse_args(argv)

    from paddle_sam.convert.convert import convert_files, explain_files

    if args.explain:
        done = explain_files(args.files)
    else:
        options = (args.output, args.reverse, args.force, args.safetensors)
        done = len(convert_files(args.files, *options))
    return exit_status(done, len(args.files) - done)


if __name__ == "__main__":
    sys.exit(main())
