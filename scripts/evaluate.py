"""Measure how good images and networks are.

    python scripts/evaluate.py sets --real FOLDER --made FOLDER
    python scripts/evaluate.py stylegan2 --checkpoint_path FILE --real FOLDER
    python scripts/evaluate.py stargan2 --checkpoint_path FILE --train_img_dir DIR --val_img_dir DIR
    python scripts/evaluate.py ageing --data_path PHOTOS
    python scripts/evaluate.py reconstruction --data_path PHOTOS

`sets`: FID, KID, precision and recall of one folder or archive of images against another;
`stylegan2`: the same of what a generator makes. `stargan2`: the protocol of its paper,
translations between all domains, judged by those measures and by LPIPS diversity. `ageing`: age
errors, identity and reconstruction of SAM, with a report in HTML. `reconstruction`: how well SAM
or pSp gives faces back. Each with --help lists its options.

What has been computed is kept and found again: the same command continues an evaluation that was
interrupted. Exit status: 0 all done, 1 some photographs failed, 2 nothing was evaluated.
"""

import json
import sys

from paddle_sam.core.command import command


@command
def main(argv=None):
    from paddle_sam.errors import ConfigError
    from paddle_sam.metrics.options import KINDS
    from paddle_sam.options import parse
    from paddle_sam.stargan2.translate_options import elsewhere

    argv = list(sys.argv[1:] if argv is None else argv)
    kind = argv.pop(0) if argv else ""
    if kind in ("-h", "--help"):
        print(__doc__)
        return 0
    if kind not in KINDS:
        raise ConfigError(f"name what to evaluate, one of {', '.join(KINDS)}; found {kind!r}")
    refused = elsewhere(KINDS[kind], "eval") if kind == "stargan2" else None
    prog = f"evaluate.py {kind}"
    config = parse(KINDS[kind], argv, KINDS[kind].__doc__, refused=refused, prog=prog)
    from paddle_sam.metrics.evaluate_run import evaluate

    results = evaluate(config)
    print(json.dumps(results, indent=2))
    return 1 if results.get("failed") else 0


if __name__ == "__main__":
    sys.exit(main())
