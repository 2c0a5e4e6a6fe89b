"""Age strips: each face beside itself at every target age.

Without arguments it ages a public-domain portrait with the embedded model and writes the strip
under examples/. Photographs are aligned first; a folder is read at any depth, and a file that
cannot be used is reported, and does not stop the others.
Exit status: 0 all done, 1 some failed, 2 none.

    python scripts/inference_side_by_side.py
    python scripts/inference_side_by_side.py --data_path photo.jpg --target_age 0-100:5
    python scripts/inference_side_by_side.py --data_path CelebA_test --exp_dir results \\
        --checkpoint_path pretrained_models/sam_ffhq_aging.pdparams --target_age=0,10,20,30,40,50
"""

from paddle_sam.core.command import script

main = script(
    __doc__,
    "paddle_sam.ageing.options:SideBySideOptions",
    "paddle_sam.ageing.run:side_by_side",
)

if __name__ == "__main__":
    raise SystemExit(main())
