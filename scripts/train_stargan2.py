"""Train StarGAN v2 on folders of images, one for each domain.

The published command line works as it is; `--preset celeba_hq` and `afhq` stand for its values,
`mini` trains small networks on a processor. The same command goes on with a run that was stopped.
Checkpoints in EXP_DIR/checkpoints are what --checkpoint_path of the other commands takes.

    python scripts/train_stargan2.py --preset afhq --train_img_dir AFHQ/train --val_img_dir AFHQ/val
    python scripts/train_stargan2.py --preset mini --train_img_dir AGES/train --val_img_dir AGES/val
"""

from paddle_sam.core.command import command


@command
def main(argv=None):
    from paddle_sam.options import parse
    from paddle_sam.stargan2 import options as stargan2
    from paddle_sam.stargan2.translate_options import elsewhere

    config_type = stargan2.StarGAN2Options
    refused = elsewhere(config_type, "train")
    config = parse(config_type, argv, __doc__, stargan2.PRESETS, stargan2.implied, refused)
    from paddle_sam.stargan2.run import train_stargan2

    folder = train_stargan2(config)
    print(f"run: {folder}\nlook at it: python scripts/visualize.py {folder}")


if __name__ == "__main__":
    raise SystemExit(main())
