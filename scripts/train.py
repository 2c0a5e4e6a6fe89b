"""Train SAM (`--task sam`) or the pSp encoder it starts from (`--task psp`).

The published command line works as it is; `--preset paper` stands for its values, `--preset mini`
trains the small networks of this repository on a CPU. Running the same command again resumes a run
that was stopped, exactly where it was. Checkpoints in EXP_DIR/checkpoints are what
--checkpoint_path of the inference commands takes.

    python scripts/train.py --preset mini --train_data FACES/train --test_data FACES/test
    python scripts/train.py --preset paper --train_data FFHQ --test_data CelebA_test
    python scripts/train.py --preset paper --task psp --train_data FFHQ --test_data CelebA_test

Options ending in _lambda, _aging or _crop are factors of the losses.
"""

from paddle_sam.core.command import script

main = script(
    __doc__,
    "paddle_sam.ageing.train.options:SAMOptions",
    "paddle_sam.ageing.train.run:train_sam",
    "run: {0}\nlook at it: python scripts/visualize.py {0}",
)

if __name__ == "__main__":
    raise SystemExit(main())
