"""Say that Ranger has not to be compiled: it is written in Paddle's tensor operations.

Earlier ports built an operator before the first training. Here nothing is built at any time, and
`python scripts/train.py` is enough.
"""

import argparse

from paddle_sam.core.command import command


@command
def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(argv)
    print("Nothing has to be compiled: Ranger is written in Paddle's tensor operations.")
    print("Train with: python scripts/train.py --help")


if __name__ == "__main__":
    raise SystemExit(main())
