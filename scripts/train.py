"""Train SAM (`--task sam`) or the pSp encoder it starts from (`--task psp`)."""

from paddle_sam.common.runtime import command


@command
def main(argv=None):
    from paddle_sam.configs import sam
    from paddle_sam.configs.base import parse

    config = parse(sam.SAMConfig, argv, __doc__, sam.PRESETS, sam.implied)
    from paddle_sam.training.sam_run import train_sam

    folder = train_sam(config)
    print(f"run: {folder}\nlook at it: python scripts/visualize.py {folder}")


if __name__ == "__main__":
    raise SystemExit(main())
