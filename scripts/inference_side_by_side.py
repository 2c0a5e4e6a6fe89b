"""Age strips: each face beside itself at every target age.

Without arguments it ages a public-domain portrait with the embedded model and writes the strip
under examples/. Photographs are aligned first; a folder is read at any depth, and a file that
cannot be used is reported while the others go on. Exit status: 0 all done, 1 some failed, 2 none.

    python scripts/inference_side_by_side.py
    python scripts/inference_side_by_side.py --data_path photo.jpg --target_age 0-100:5
    python scripts/inference_side_by_side.py --data_path CelebA_test --exp_dir results \\
        --checkpoint_path pretrained_models/sam_ffhq_aging.pdparams --target_age=0,10,20,30,40,50
"""

import sys

from paddle_sam.core.command import command


@command
def main(argv=None):
    from paddle_sam.ageing.options import SideBySideOptions
    from paddle_sam.options import parse

    config = parse(SideBySideOptions, argv, __doc__)
    from paddle_sam.ageing.strips import side_by_side

    return side_by_side(config).status()


if __name__ == "__main__":
    sys.exit(main())
