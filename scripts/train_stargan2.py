"""Train StarGAN v2 on a folder of domains (`--preset celeba_hq`, `afhq` or `mini`)."""

from paddle_sam.common.runtime import command


@command
def main(argv=None):
    from paddle_sam.configs import stargan2
    from paddle_sam.configs.base import parse
    from paddle_sam.configs.translation import elsewhere

    config_type = stargan2.StarGAN2Config
    refused = elsewhere(config_type, "train")
    config = parse(config_type, argv, __doc__, stargan2.PRESETS, stargan2.implied, refused)
    from paddle_sam.training.stargan2_run import train_stargan2

    folder = train_stargan2(config)
    print(f"run: {folder}\nlook at it: python scripts/visualize.py {folder}")


if __name__ == "__main__":
    raise SystemExit(main())
