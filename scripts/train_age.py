"""Train the age regressor that SAM is trained with, on faces of known age.

Ages come from UTKFace's file names, a CSV table with the columns image and age, or FFHQ-Aging's
JSON. The same command goes on with a run that was stopped.

    python scripts/train_age.py --train_data UTKFace --vgg_path pretrained_models/lpips_vgg.npz
    python scripts/train_age.py --train_data FACES --labels ages.csv --network mini --input_size 64
"""

from paddle_sam.core.command import command


@command
def main(argv=None):
    from paddle_sam.ageing.train.age_options import AgeOptions
    from paddle_sam.options import parse

    config = parse(AgeOptions, argv, __doc__)
    from paddle_sam.ageing.train.age_run import train_age

    folder = train_age(config)
    print(f"run: {folder}\nlook at it: python scripts/visualize.py {folder}")


if __name__ == "__main__":
    raise SystemExit(main())
