"""Open VisualDL on a training run (or on a folder of runs)."""

import argparse

from paddle_sam.common.runtime import command


@command
def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", default="log", help="run folder, or a folder of runs")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on")
    parser.add_argument("--port", type=int, default=8040, help="port to serve on")
    options = parser.parse_args(argv)

    from paddle_sam.training.visualize import serve

    serve(options.run, options.host, options.port)


if __name__ == "__main__":
    raise SystemExit(main())
