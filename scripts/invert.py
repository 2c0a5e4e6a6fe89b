"""Turn pictures into codes and images by an encoder: pSp, e4e, ReStyle, or SAM's frozen one.

The weight file says what the encoder takes: photographs, also small ones (super-resolution) or
ones to be turned or drawn; sketches, black on white; or label maps, palette or grey PNG files whose
numbers are the labels. Faces are cut out of photographs, other pictures are resized to a square, or
for encoders of cars to 4 to 3.

Of NAME.EXT it writes to EXP_DIR/inversion the code as NAME.npz (and NAME.pd), the image as
NAME-inversion.png, and both side by side as NAME-sheet.jpg, of ReStyle with every step. Other
commands take the code as the face (--latent NAME.npz), scripts/project.py brings it closer.
HyperStyle also writes the generator that it tuned for the face, NAME-generator.pdparams, which
commands that age take (--generator). --latent_mask adds images of the same shape in the styles of
random faces, NAME-styleSEED.png.

    python scripts/invert.py
    python scripts/invert.py photos --checkpoint_path e4e_ffhq_encode.pdparams
    python scripts/invert.py photos --checkpoint_path restyle_psp_ffhq_encode.pdparams --steps 3
    python scripts/invert.py sketches --checkpoint_path psp_celebs_sketch_to_face.pdparams \\
        --latent_mask 8-17
    python scripts/invert.py photos --checkpoint_path hyperstyle_ffhq.pdparams \\
        --w_encoder_checkpoint_path faces_w_encoder.pdparams
    python scripts/invert.py photos --checkpoint_path psp_celebs_super_resolution.pdparams \\
        --resize_factors 16
"""

from paddle_sam.core.command import script

main = script(
    __doc__,
    "paddle_sam.ageing.latent_options:InvertOptions",
    "paddle_sam.ageing.invert:invert_pictures",
)

if __name__ == "__main__":
    raise SystemExit(main())
