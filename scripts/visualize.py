"""Serve VisualDL with the curves and pictures of a training run, or of all runs in a folder.

python scripts/visualize.py log/mini
python scripts/visualize.py log --tensorboard curves    # for TensorBoard instead
"""

from paddle_sam.core.command import script

main = script(
    __doc__,
    "paddle_sam.training.curves:VisualizeOptions",
    "paddle_sam.training.curves:visualize",
)

if __name__ == "__main__":
    raise SystemExit(main())
