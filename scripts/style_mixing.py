"""Aged faces with the colours and textures of random faces: EXP_DIR/style_mixing/NAME.

The codes that --latent_mask names come from random faces, which stand on top of the sheet; below
them is a row for each age, beginning with the face itself at that age.

    python scripts/style_mixing.py
    python scripts/style_mixing.py --data_path photo.jpg --latent_mask=7-9 --mix_alpha 0.5 --seed 3
"""

from paddle_sam.core.command import script

main = script(
    __doc__,
    "paddle_sam.ageing.options:StyleMixingOptions",
    "paddle_sam.ageing.mixing:style_mixing",
)

if __name__ == "__main__":
    raise SystemExit(main())
