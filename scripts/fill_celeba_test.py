"""Fill CelebA_test/ with the images of the published comparison, from your copy of CelebA.

--data_path may be a folder of CelebA (img_align_celeba), of CelebA-HQ, or one that holds both, at
any depth. See CelebA_test/README.md for where to get them.

Exit status: 0 all there, 1 some are missing, 2 none was found.
Example: python scripts/fill_celeba_test.py --data_path datasets/CelebAMask-HQ
"""

import argparse
from pathlib import Path

from paddle_sam.core.command import command


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data_path", type=Path, required=True, help="folder to look in")
    options.add_argument(
        "--output_path",
        type=Path,
        default=Path(__file__).resolve().parents[1] / "CelebA_test",
        help="where to put the images (default: the repository's CelebA_test)",
    )
    return options


@command
def main(argv=None):
    args = parser().parse_args(argv)
    from paddle_sam.imagesets.celeba_test import fill_celeba_test

    copied, missing = fill_celeba_test(args.data_path, args.output_path)
    print(f"copied to {args.output_path}: {', '.join(path.name for path in copied)}")
    if missing:
        print(f"not in {args.data_path}: {', '.join(map(str, missing))}")
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
