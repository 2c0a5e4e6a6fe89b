"""Find the code that makes the generator reproduce a face: EXP_DIR/projection/NAME.{npz,png,mp4}.

Starts from the encoder's code or the mean latent and minimises LPIPS and the squared error. What
a mask NAME.mask.EXT beside NAME.EXT leaves black does not count, nor what alignment added beyond
the photograph's edge. The .npz file is the face for the other commands: --latent NAME.npz ages it.

    python scripts/project.py
    python scripts/project.py --data_path photos --step 200 --start mean --space w
    python scripts/inference_side_by_side.py --latent examples/projection/astronaut.npz
"""

from paddle_sam.core.command import script

main = script(
    __doc__,
    "paddle_sam.ageing.options:ProjectOptions",
    "paddle_sam.ageing.project:project_photos",
)

if __name__ == "__main__":
    raise SystemExit(main())
