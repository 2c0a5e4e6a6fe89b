"""Videos of what a StyleGAN2 generator has learned: EXP_DIR/videos/NAME.mp4.

walk      a grid of faces, each wandering through latent space
coarse    faces on top that take on the coarse styles (pose, shape) of a wandering one at the left
middle    the same with its middle styles
fine      the same with its fine styles (colours)
training  the same seeds through the snapshots of a training run, network_KIMG.pdparams

All but the last loop without a seam. MP4 files are H.264 in yuv420p, which every player shows.

    python scripts/video.py
    python scripts/video.py --videos walk --grid 2x2 --duration 60 --fps 20 --bitrate 5M
    python scripts/video.py --videos coarse,fine --destinations 3,14,15 --seed 500
    python scripts/video.py --videos training --snapshots log/mine/snapshots --grid 6x3
"""

from paddle_sam.core.command import script

main = script(
    __doc__,
    "paddle_sam.stylegan2.options:VideosOptions",
    "paddle_sam.stylegan2.videos:videos",
)

if __name__ == "__main__":
    raise SystemExit(main())
