"""Rank images by a trained discriminator, to find what does not belong in a data set.

    python scripts/rank_images.py --data_path data/faces.zip --checkpoint_path FILE
    python scripts/rank_images.py --data_path data/faces.zip --drop_percent 5
    python scripts/rank_images.py --samples 500 --truncation 0.7

Writes to --exp_dir ranking.csv, most real first, and contact sheets of both ends, best.jpg and
worst.jpg. With --drop_percent it also writes kept.zip, an archive without the worst; your own files
are only read. --samples ranks generated images, which stay in samples/. The same command resumes
an interrupted ranking.

Exit status: 0 done, 1 some images could not be read, 2 none.
"""

from paddle_sam.core.command import script

main = script(
    __doc__,
    "paddle_sam.stylegan2.options:RankOptions",
    "paddle_sam.stylegan2.rank:rank_images",
)

if __name__ == "__main__":
    raise SystemExit(main())
