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

from paddle_sam.core.command import command


@command
def main(argv=None):
    from paddle_sam.core.command import parse
    from paddle_sam.stylegan2.options import RankOptions

    config = parse(RankOptions, argv, __doc__)
    from paddle_sam.stylegan2.rank import rank_images

    ranking = rank_images(config)
    for path in ranking.files:
        print(path)
    print(f"{ranking.images} images ranked, {ranking.unreadable} unreadable")
    return int(ranking.unreadable > 0)


if __name__ == "__main__":
    raise SystemExit(main())
