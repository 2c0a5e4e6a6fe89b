"""Fill CelebA_test/ with the images of the published comparison, from your copy of CelebA.

--data_path may be a folder of CelebA (img_align_celeba), of CelebA-HQ, or one that holds both, at
any depth. See CelebA_test/README.md for where to get them.

Exit status: 0 all there, 1 some are missing, 2 none was found.
Example: python scripts/fill_celeba_test.py --data_path datasets/CelebAMask-HQ
"""

from paddle_sam.core.command import script

main = script(
    __doc__,
    "paddle_sam.imagesets.celeba_test:FillOptions",
    "paddle_sam.imagesets.celeba_test:fill",
)

if __name__ == "__main__":
    raise SystemExit(main())
