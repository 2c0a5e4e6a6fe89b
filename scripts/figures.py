"""The figures of the StyleGAN papers for your own generator: EXP_DIR/figures/NAME.png.

uncurated   consecutive seeds, nobody's choice, in sizes that halve from column to column
mixing      faces at the left that take coarse, middle or fine styles from the faces on top
noise       a detail under four noise draws, and the deviation of every pixel over 100 draws
components  all noise, none, only that of the fine layers, only that of the coarser ones
classes     the same seeds in every class of a conditional model (on request)
truncation  faces at psi 1, 0.7, ... 0, ... -1: through the average face to their opposites

Which layers are coarse, middle and fine follows from the resolution. At 1024 px they begin at 4,
16 and 64 px, at 64 px at 4, 8 and 16 px.

    python scripts/figures.py
    python scripts/figures.py --figures mixing --mix_rows 1-3 --mix_columns 10-14 --mix_styles 0-3
    python scripts/figures.py --figures truncation --truncation_seeds 0-7 --psis=1,0.5,0,-0.5,-1
"""

from paddle_sam.core.command import script

main = script(
    __doc__,
    "paddle_sam.stylegan2.options:FiguresOptions",
    "paddle_sam.stylegan2.figures:figures",
)

if __name__ == "__main__":
    raise SystemExit(main())
