"""Sheets of what directions in latent space do to a face: EXP_DIR/directions/NAME.

Without a file of directions they are found in the generator's weights (closed-form factorisation,
sefa0 the strongest). Each row shows one, moved along by --amounts. What is found useful can be
kept by name in an .npz file and applied, while ageing, by the other commands: --edit smile=2.
Directions in style space, such as StyleCLIP's, are shown here too (docs/latents.md).

--learn finds one from random faces and what a judge, or a table, says of each: it prints how well
that can be told from codes of faces held out, and writes EXP_DIR/directions/NAME.npz.

    python scripts/edit.py
    python scripts/edit.py --explore sefa0-9 --amounts=-4,-2,0,2,4 --edit_level 0-3
    python scripts/edit.py --directions mine.npz --explore smile,pose --target_age 20,70
    python scripts/inference_side_by_side.py --directions mine.npz --edit smile=2,sefa4=-1
    python scripts/edit.py --learn age
    python scripts/edit.py --learn glasses.csv
"""

from paddle_sam.core.command import script

main = script(
    __doc__,
    "paddle_sam.ageing.latent_options:EditOptions",
    "paddle_sam.ageing.mixing:edit_sheets",
)

if __name__ == "__main__":
    raise SystemExit(main())
