"""StarGAN v2: train it, translate images with it, measure it, align photographs for it.

    python scripts/stargan2.py --mode train --preset afhq --train_img_dir DIR --val_img_dir DIR
    python scripts/stargan2.py --mode sample --checkpoint_path FILE --src_dir DIR --ref_dir DIR
    python scripts/stargan2.py --mode eval --checkpoint_path FILE --train_img_dir DIR \\
        --val_img_dir DIR
    python scripts/stargan2.py --mode align --inp_dir photos --out_dir data/mine/src/female

Published command lines work as they are; `--mode MODE --help` lists the options of a mode.

train   `--preset celeba_hq` and `afhq` stand for the published settings, `mini` trains small
        networks on a CPU. Running the same command again resumes a run that was stopped.
        Checkpoints in EXP_DIR/checkpoints are what --checkpoint_path takes.
sample  Write to `--result_dir` the matrix `reference.jpg` (sources along the top, references down
        the side), a grid `latent_DOMAIN.jpg` for each domain (a row for each latent), and
        `video_ref.mp4`, in which the sources take on one reference's style after the other.
eval    The protocol of the paper, as JSON; the same as `scripts/evaluate.py stargan2`.
align   Align photographs of one face each onto the mean face of CelebA-HQ. Exit status: 0 all
        done, 1 some failed, 2 none.
"""

import json
import sys

from paddle_sam.core.command import command


@command
def main(argv=None):
    from paddle_sam.stargan2.options import read_command_line

    config = read_command_line(argv, __doc__)
    if config.mode == "align":
        from paddle_sam.stargan2.align import align_for_stargan2

        return align_for_stargan2(config)
    if config.mode == "train":
        from paddle_sam.stargan2.trainer import train_stargan2

        folder = train_stargan2(config)
        print(f"run: {folder}\nlook at it: python scripts/visualize.py {folder}")
    elif config.mode == "sample":
        from paddle_sam.stargan2.translate import sample

        print(*sample(config), sep="\n")
    else:
        from paddle_sam.stargan2.protocol import evaluate_stargan2

        print(json.dumps(evaluate_stargan2(config), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
