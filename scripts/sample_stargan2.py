"""Translate images with StarGAN v2: by references, by latents, and as a video.

    python scripts/sample_stargan2.py --checkpoint_path FILE --src_dir DIR --ref_dir DIR

Writes to `--result_dir` the matrix `reference.jpg` (sources along the top, references down the
side), a grid `latent_DOMAIN.jpg` for each domain (a row for each latent), and `video_ref.mp4`, in
which the sources take on the style of one reference after the other.
"""

from paddle_sam.core.command import command


@command
def main(argv=None):
    from paddle_sam.options import parse
    from paddle_sam.stargan2.translate_options import SampleOptions, elsewhere

    config = parse(SampleOptions, argv, __doc__, refused=elsewhere(SampleOptions, "sample"))
    from paddle_sam.stargan2.translate import sample

    for path in sample(config):
        print(path)


if __name__ == "__main__":
    raise SystemExit(main())
