"""Train StyleGAN2 on a folder of images, or on an archive made by data preparation.

Settings follow --resolution and --batch_size (preset auto); small data sets are augmented
adaptively. The same command goes on with a run that was stopped, exactly where it was. Progress
is counted in thousands of images (kimg).

From scratch:   python scripts/train_stylegan2.py --train_data FACES --resolution 256
From a model:   python scripts/train_stylegan2.py --train_data FACES --init_from stylegan2.pdparams
On a processor: python scripts/train_stylegan2.py --train_data FACES --preset mini
"""

from paddle_sam.core.command import command


@command
def main(argv=None):
    from paddle_sam.options import parse
    from paddle_sam.stylegan2.train import options as stylegan2

    config = parse(stylegan2.StyleGAN2Options, argv, __doc__)
    from paddle_sam.stylegan2.train.run import train_stylegan2

    folder = train_stylegan2(config)
    print(
        f"run: {folder}\ngrids: {folder}/samples\nlook at it: python scripts/visualize.py {folder}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
