"""Align the faces of a folder of photographs, for training or for use with --no_align.

Every image under --root_path, at any depth, is searched for a face, which is turned upright and
cut out as in FFHQ. The crops go to the same folders under --output_path. Crops that are there are
skipped, so the same command continues an interrupted run. Photographs without a usable face are
listed with the reason in align_failures.jsonl beside the crops.

    python scripts/download_weights.py landmarks
    python scripts/align_all_parallel.py --root_path photos --num_threads 4
    python scripts/align_all_parallel.py --root_path photos --size 64 --scale 0.6 --offset 0.5 \\
        --oversample 4 --output_path for_sam_mini

Exit status: 0 all aligned, 1 some failed, 2 none could be aligned.
"""

from paddle_sam.core.command import script

main = script(
    __doc__,
    "paddle_sam.faces.options:AlignFolderOptions",
    "paddle_sam.faces.align_folder:align_all",
)

if __name__ == "__main__":
    raise SystemExit(main())
