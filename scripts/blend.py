"""Blend two StyleGAN2 generators by layers: coarse layers of one, fine layers of the other.

    python scripts/blend.py --low faces.pdparams --high cartoons.pdparams --resolution 32
    python scripts/blend.py --low sam_ffhq_aging.pdparams --high cartoons.pdparams --width 1 \\
        --output cartoon_sam.pdparams
    python scripts/blend.py --low faces.pdparams --high cartoons.pdparams --layer 6

The low layers decide pose and shape, the high ones texture and colour. One generator must be a
transfer of the other (`scripts/train_stylegan2.py --init_from`). --output is a weight file like
--low: of a SAM or pSp file the decoder is blended, so that faces are aged in the other's style.
Beside it a sheet shows both generators and the result.
"""

from paddle_sam.core.command import script

main = script(
    __doc__,
    "paddle_sam.stylegan2.options:BlendOptions",
    "paddle_sam.stylegan2.blend:blend_files",
)

if __name__ == "__main__":
    raise SystemExit(main())
