"""Aged faces with the colours and textures of reference faces: EXP_DIR/reference_guided/AGE/NAME.

The codes that --latent_mask names come from the images listed in --ref_images_paths_file, aged to
the same age. They stand on top of each sheet, above the results.

    python scripts/reference_guided_inference.py --ref_images_paths_file references.txt
    python scripts/reference_guided_inference.py --data_path photos --exp_dir results \\
        --ref_images_paths_file references.txt --latent_mask=8,9 --target_age=30,60
"""

from paddle_sam.core.command import script

main = script(
    __doc__,
    "paddle_sam.ageing.options:ReferenceOptions",
    "paddle_sam.ageing.mixing:reference_guided",
)

if __name__ == "__main__":
    raise SystemExit(main())
