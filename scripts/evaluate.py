"""Measure how good images are.

    python scripts/evaluate.py sets --real FOLDER --made FOLDER
    python scripts/evaluate.py stargan2 --checkpoint_path FILE --train_img_dir DIR --val_img_dir DIR

`sets` gives FID, KID, precision and recall of a folder of images against another. `stargan2` runs
the protocol of its paper: translations between all domains, guided by latents and by references,
judged by those measures and by LPIPS diversity. What has been computed is kept and found again,
so an interrupted evaluation is continued by the same command.
"""

import json
import sys

from paddle_sam.common.runtime import command

KINDS = ("sets", "stargan2")


@command
def main(argv=None):
    from paddle_sam.common.checks import ConfigError
    from paddle_sam.configs import evaluate as options
    from paddle_sam.configs.base import parse

    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and argv[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    if not argv or argv[0] not in KINDS:
        raise ConfigError(
            f"name what to evaluate first, one of {', '.join(KINDS)}; found"
            f" {argv[0] if argv else 'nothing'!r}"
        )
    kind = argv.pop(0)
    config_type = {"sets": options.SetsConfig, "stargan2": options.StarGAN2EvaluationConfig}[kind]
    config = parse(config_type, argv, __doc__)
    from paddle_sam.metrics import evaluate

    run = {"sets": evaluate.evaluate_sets, "stargan2": evaluate.evaluate_stargan2}[kind]
    print(json.dumps(run(config), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
