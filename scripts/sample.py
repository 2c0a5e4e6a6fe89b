"""Images that a StyleGAN2 generator makes of seeds: EXP_DIR/samples/seedNNNN.png.

A seed always makes the same face, whatever else is asked for. Images that exist are not made again,
so the same command resumes a run that was cut off. --grid also writes sheets,
EXP_DIR/sample_sheets/sheet_N.png.

    python scripts/sample.py
    python scripts/sample.py --checkpoint_path log/mine/snapshots/network_001000.pdparams \\
        --seeds 0-999,2005 --truncation 0.6 --exp_dir results/mine
    python scripts/sample.py --seeds 0-999 --truncation 0.6 --noise random --names example
    python scripts/sample.py --seeds 0-31 --grid 8x4 --truncation -0.7 --exp_dir results/opposites
"""

from paddle_sam.core.command import script

main = script(
    __doc__,
    "paddle_sam.stylegan2.options:SamplingOptions",
    "paddle_sam.stylegan2.sampling:sample",
)

if __name__ == "__main__":
    raise SystemExit(main())
