"""Aged faces with the colours and textures of random faces: EXP_DIR/style_mixing/NAME.

The codes that --latent_mask names come from random faces, which stand on top of the sheet; below
them is a row for each age, beginning with the face itself at that age.

    python scripts/style_mixing.py
    python scripts/style_mixing.py --data_path photo.jpg --latent_mask=7-9 --mix_alpha 0.5 --seed 3
"""

import sys

from paddle_sam.core.command import command


@command
def main(argv=None):
    from paddle_sam.ageing.editing_options import StyleMixingOptions
    from paddle_sam.options import parse

    config = parse(StyleMixingOptions, argv, __doc__)
    from paddle_sam.ageing.mixing import style_mixing

    return style_mixing(config).status()


if __name__ == "__main__":
    sys.exit(main())
