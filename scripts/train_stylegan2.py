"""Train StyleGAN2 on a folder of images, or on an archive made by data preparation.

Settings follow --resolution and --batch_size (preset auto); small data sets are augmented
adaptively. Running the same command again resumes a run that was stopped, exactly where it was.
Progress is counted in thousands of images (kimg).

From scratch:   python scripts/train_stylegan2.py --train_data FACES --resolution 256
From a model:   python scripts/train_stylegan2.py --train_data FACES --init_from stylegan2.pdparams
On a CPU:       python scripts/train_stylegan2.py --train_data FACES --preset mini
"""

from paddle_sam.core.command import script

main = script(
    __doc__,
    "paddle_sam.stylegan2.train.options:StyleGAN2Options",
    "paddle_sam.stylegan2.train.run:train_stylegan2",
    "run: {0}\ngrids: {0}/samples\nlook at it: python scripts/visualize.py {0}",
)

if __name__ == "__main__":
    raise SystemExit(main())
