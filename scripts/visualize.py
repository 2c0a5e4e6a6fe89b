"""Serve VisualDL with the curves and pictures of a training run, or of all runs in a folder.

python scripts/visualize.py log/mini
"""

import argparse

from paddle_sam.core.command import command


@command
def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, shown = parser.add_argument, "(default: %(default)s)"
    add("run", nargs="?", default="log", help=f"run folder, or a folder of runs {shown}")
    add("--host", metavar="TEXT", default="127.0.0.1", help=f"address to serve on {shown}")
    add("--port", metavar="N", type=int, default=8040, help=f"port to serve on {shown}")
    options = parser.parse_args(argv)

    from paddle_sam.training.curves import serve

    serve(options.run, options.host, options.port)


if __name__ == "__main__":
    raise SystemExit(main())
