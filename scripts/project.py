"""Find the code that makes the generator reproduce a face.

Of NAME.EXT it writes to EXP_DIR/projection (or --output) the code as NAME.npz, with the face it
stands for, and as NAME.pd, alone (latent_code [L, D], as paddle.save writes it); what the
generator makes of it as NAME-project.png, and the way there as NAME-project.mp4. It starts from the
encoder's code or the mean latent and minimises LPIPS and the squared error. What a mask
NAME.mask.EXT beside NAME.EXT leaves black does not count, nor what alignment added beyond the
photograph's edge. Other commands take either file as the face: --latent NAME.npz ages it.

--step 0 keeps what it starts from. --tune N then changes the generator itself until the code
renders this face (pivotal tuning): NAME-generator.pdparams, shown in NAME-tuned.png, which other
commands take as --generator.

    python scripts/project.py
    python scripts/project.py a.jpg b.jpg --output found --ckpt model.pdparams --step 200
    python scripts/project.py --data_path photos --step 200 --start mean --space w
    python scripts/inference_side_by_side.py --latent examples/projection/astronaut.npz
    python scripts/project.py a.jpg --output found --tune 350
    python scripts/animate.py --latent found/a.npz --generator found/a-generator.pdparams
"""

from paddle_sam.core.command import script

main = script(
    __doc__,
    "paddle_sam.ageing.latent_options:ProjectOptions",
    "paddle_sam.ageing.project:project_photos",
)

if __name__ == "__main__":
    raise SystemExit(main())
