"""Look closely at a StyleGAN2 generator: EXP_DIR/inspection/.

average_face.png   the face that truncation at psi 0 leaves of every other
nearest.png, .json with --data_path: the nearest neighbours of samples in the data set, a folder or
                   archive, and how far its images are from each other. Samples much nearer to the
                   data than that are copies: the network has overfitted
a table of layers  with --layers, on standard output: names, output shapes, parameters
A_to_B.png, .mp4   with --latents: between two images that scripts/project.py has projected

    python scripts/inspect_generator.py --data_path faces.zip --seeds 0-15
    python scripts/inspect_generator.py --data_path faces --features pixels --n_images 1000
    python scripts/inspect_generator.py --latents results/projection/a.npz,results/projection/b.npz
"""

from paddle_sam.core.command import script

main = script(
    __doc__,
    "paddle_sam.stylegan2.options:InspectionOptions",
    "paddle_sam.stylegan2.inspection:inspect_generator",
)

if __name__ == "__main__":
    raise SystemExit(main())
