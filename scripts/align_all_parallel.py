"""Align the faces of a folder of photographs, for training or for use with --no_align.

Every image under --root_path, at any depth, is searched for a face, which is turned upright and
cut out as in FFHQ. The crops go to the same folders under --output_path. Crops that are there are
skipped, so the same command continues an interrupted run. Photographs without a usable face are
listed with the reason in align_failures.jsonl beside the crops.

Needs the landmark predictor: python scripts/download_weights.py landmarks
Exit status: 0 all aligned, 1 some failed, 2 none could be aligned.
Example: python scripts/align_all_parallel.py --root_path photos --num_threads 4
"""

import argparse
import os
from pathlib import Path

from paddle_sam.common.runtime import command


class _Help(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    pass


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=_Help)
    add = options.add_argument
    add("--root_path", type=Path, required=True, help="folder of photographs")
    add("--output_path", type=Path, help="folder for the crops; None is ROOT_PATH_aligned")
    add("--num_threads", type=int, default=os.cpu_count(), help="processes to use")
    add("--size", type=int, default=256, help="side of the crops in pixels; sam_mini takes 64")
    add("--scale", type=float, default=1.0, help="size of the crop, FFHQ's is 1, sam_mini's 0.6")
    add(
        "--offset", type=float, default=0.1, help="centre, from eyes (0) to mouth (1); sam_mini 0.5"
    )
    faces = ("best", "largest", "all")
    add("--face", choices=faces, default="best", help="of several faces; best: most confident")
    add("--format", choices=("png", "jpg"), default="png", help="of the crops")
    return options


@command
def main(argv=None):
    args = parser().parse_args(argv)
    from paddle_sam.data.align_folder import align_folder
    from paddle_sam.data.alignment import CropSettings
    from paddle_sam.models.face_landmarks import FaceLandmarker

    root = args.root_path.resolve()
    output = args.output_path or root.with_name(f"{root.name}_aligned")
    crop = CropSettings(args.size, args.scale, args.offset)
    options = {"choice": args.face, "suffix": f".{args.format}", "workers": args.num_threads}
    summary = align_folder(root, output, FaceLandmarker, crop, **options)
    print(f"{output}: {summary}")
    usable = summary.aligned + summary.skipped
    return 0 if not summary.failed else 1 if usable else 2


if __name__ == "__main__":
    raise SystemExit(main())
