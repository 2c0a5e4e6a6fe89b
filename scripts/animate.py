"""A video of each face growing old and young again: EXP_DIR/animations/NAME.mp4.

The face is encoded at a few ages and the codes between them are interpolated, so that the change
is smooth. MP4 files are H.264 in yuv420p, which every player and browser shows; GIF and WebP are
written on request.

    python scripts/animate.py
    python scripts/animate.py --data_path photo.jpg --duration 10 --formats mp4,gif --no-labels
"""

from paddle_sam.core.command import script

main = script(
    __doc__,
    "paddle_sam.ageing.options:AnimationOptions",
    "paddle_sam.ageing.animate:animate",
)

if __name__ == "__main__":
    raise SystemExit(main())
