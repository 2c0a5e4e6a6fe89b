"""Videos of what a StyleGAN2 generator has learned: EXP_DIR/videos/NAME.mp4.

walk      a grid of faces, each wandering through latent space
coarse    faces on top that take on the coarse styles (pose, shape) of a wandering one at the left
middle    the same with its middle styles
fine      the same with its fine styles (colours)
mix       the same with styles of your choice (--style_ranges)
face      one face alone whose --style_ranges follow the walk
morph     projected faces (--latents, files of scripts/project.py) that turn into one another
training  the same seeds through the snapshots of a training run, network_KIMG.pdparams; or the
          run's own sample grids, fakes*.png (--grids)

All but the last loop without a seam. File names end in the seed: walk_0.mp4. MP4 files are H.264 in
yuv420p, which every player shows.

    python scripts/video.py
    python scripts/video.py --preset random_grid_404
    python scripts/video.py --videos coarse,fine --destinations 3,14,15 --seed 500
    python scripts/video.py --videos mix --destinations 3,14 --style_ranges 0-1,6-
    python scripts/video.py --videos morph --latents a.npz,b.npz,c.npz --duration 6
    python scripts/video.py --videos training --snapshots log/mine/snapshots --grid 6x3
    python scripts/video.py --grids log/mine/samples
"""

from paddle_sam.core.command import script

main = script(
    __doc__,
    "paddle_sam.stylegan2.options:VideosOptions",
    "paddle_sam.stylegan2.videos:videos",
)

if __name__ == "__main__":
    raise SystemExit(main())
