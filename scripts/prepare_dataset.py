"""Make a data set to train StyleGAN2 on from folders and archives of any pictures.

    python scripts/prepare_dataset.py --data_path photos,more.zip --output data/faces.zip --size 256
    python scripts/prepare_dataset.py --data_path photos --output data/faces.zip --crop face
    python scripts/prepare_dataset.py --data_path anime.tar.gz --output data/anime.zip --size 512 \\
        --crop cascade --cascade lbpcascade_animeface.xml --face all --face_scale 1.5

Every image is checked, brought to sRGB, cut to a square and reduced to --size. Damaged, small,
blank, grey and duplicate ones are left out; of duplicates the best is kept. The archive is a zip
of images with a dataset.json that states the source of each. Beside it, NAME_report/ lists every
input with its outcome (report.csv), with contact sheets of what was kept and dropped, by reason.
Your pictures are only read. After a kill the same command resumes.

Exit status: 0 done, 1 some files could not be read, 2 nothing was kept.
"""

from paddle_sam.core.command import script

main = script(
    __doc__,
    "paddle_sam.imagesets.prepare.options:PrepareOptions",
    "paddle_sam.imagesets.prepare.prepare:prepare",
)

if __name__ == "__main__":
    raise SystemExit(main())
