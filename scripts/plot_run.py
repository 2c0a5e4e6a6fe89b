"""Draw the curves of a training run as a picture, without a browser.

python scripts/plot_run.py log/mini
"""

from paddle_sam.core.command import script

main = script(
    __doc__,
    "paddle_sam.training.curves:PlotOptions",
    "paddle_sam.training.curves:plot_run",
)

if __name__ == "__main__":
    raise SystemExit(main())
