"""Download published weights into pretrained_models/, checked and resumable.

Sound files that are there already are not fetched again; a transfer that broke off resumes when the
command is run again. Where a host refuses, the message says what to fetch by hand.
Published PyTorch files are converted afterwards: python convert/convert_weights.py FILE
Exit status: 0 all there, 1 some failed, 2 none.

    python scripts/download_weights.py --list
    python scripts/download_weights.py landmarks lpips_alex
    python scripts/download_weights.py judges
"""

import argparse
from pathlib import Path

from paddle_sam.core.command import command, exit_status


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="what to download: names of the first column of --list, such as landmarks,"
        " or judges, the networks that measure results",
    )
    options.add_argument("--list", action="store_true", help="print all names and what is here")
    options.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="where to put the files (default: $PADDLE_SAM_WEIGHTS if set, else pretrained_models)",
    )
    return options


@command
def main(argv=None):
    options = parser()
    args = options.parse_args(argv)
    if not (args.names or args.list):
        options.error("name what to download, or give --list")
    from paddle_sam.convert.obtain_weights import obtain_all, table
    from paddle_sam.core.weights import ungrouped, weights_dir

    folder = args.output or weights_dir()
    names = ungrouped(args.names)
    ready = obtain_all(names, folder)
    if args.list:
        print(table(folder))
    return exit_status(len(ready), len(names) - len(ready)) if names else 0


if __name__ == "__main__":
    raise SystemExit(main())
