"""Train the age regressor that SAM is trained with, on faces of known age.

Ages come from UTKFace's file names, a CSV table with the columns image and age, or FFHQ-Aging's
JSON. Running the same command again resumes a run that was stopped.

    python scripts/train_age.py --train_data UTKFace --vgg_path pretrained_models/lpips_vgg.npz
    python scripts/train_age.py --train_data FACES --labels ages.csv --network mini --input_size 64
"""

from paddle_sam.core.command import script

main = script(
    __doc__,
    "paddle_sam.ageing.train.options:AgeOptions",
    "paddle_sam.ageing.train.age:train_age",
    "run: {0}\nlook at it: python scripts/visualize.py {0}",
)

if __name__ == "__main__":
    raise SystemExit(main())
