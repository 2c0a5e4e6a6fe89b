"""Draw the curves of a training run as a picture, without a browser.

python scripts/plot_run.py log/mini
"""

import argparse
from pathlib import Path

from paddle_sam.core.command import command


@command
def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("run", type=Path, help="run folder (--exp_dir of the training)")
    add("--output", metavar="TEXT", type=Path, help="picture (default: curves.png in the run)")
    options = parser.parse_args(argv)

    from paddle_sam.training.curves import draw_curves

    output = options.output or options.run / "curves.png"
    draw_curves(options.run, output)
    print(output)


if __name__ == "__main__":
    raise SystemExit(main())
