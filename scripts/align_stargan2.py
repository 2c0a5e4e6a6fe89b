"""Align photographs of one face each onto the mean face of CelebA-HQ, as StarGAN v2 wants them.

    python scripts/align_stargan2.py --inp_dir photos --out_dir data/mine/src/female

Exit status: 0 all done, 1 some failed, 2 none.
"""

from paddle_sam.core.command import command


@command
def main(argv=None):
    from paddle_sam.options import parse
    from paddle_sam.stargan2.translate_options import AlignOptions, elsewhere

    config = parse(AlignOptions, argv, __doc__, refused=elsewhere(AlignOptions, "align"))
    from paddle_sam.stargan2.align import align_for_stargan2

    return align_for_stargan2(config)


if __name__ == "__main__":
    raise SystemExit(main())
