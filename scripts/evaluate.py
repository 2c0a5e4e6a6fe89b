"""Measure how good images and networks are.

    python scripts/evaluate.py sets --real FOLDER --made FOLDER
    python scripts/evaluate.py stylegan2 --checkpoint_path FILE --real FOLDER
    python scripts/evaluate.py stargan2 --checkpoint_path FILE --train_img_dir DIR --val_img_dir DIR
    python scripts/evaluate.py ageing --data_path PHOTOS
    python scripts/evaluate.py benchmark|dial --data_path PHOTOS [--protocol strip]
    python scripts/evaluate.py reconstruction|calibration --data_path PHOTOS

`sets`, `stylegan2`: FID, KID, precision and recall of images, or of what a generator makes.
`stargan2`: the protocol of its paper. `ageing`: ages, identity, reconstruction of SAM. `benchmark`:
the same by open judges; `dial`: that for several settings of `--keep`. `reconstruction`: of SAM or
pSp. `calibration`: which ages a model reaches. Exit status: 0 all done, 1 some failed, 2 none done.
"""

import json
import pkgutil
import sys

from paddle_sam.core.command import command

# Options and function of each, imported when asked for.
KINDS = {
    "sets": ("metrics.options:SetsOptions", "metrics.sets:evaluate_sets"),
    "stylegan2": ("stylegan2.options:EvaluationOptions", "stylegan2.evaluate:evaluate_stylegan2"),
    "stargan2": ("stargan2.options:read_command_line", "stargan2.protocol:evaluate_stargan2"),
    "ageing": ("ageing.eval_options:AgeingEvaluationOptions", "ageing.evaluate:evaluate_ageing"),
    "benchmark": ("ageing.eval_options:BenchmarkOptions", "ageing.benchmark:run_benchmark"),
    "dial": ("ageing.eval_options:DialOptions", "ageing.benchmark:compare_dials"),
    "calibration": ("ageing.eval_options:CalibrationOptions", "ageing.evaluate:calibrate"),
    "reconstruction": (
        "ageing.eval_options:ReconstructionOptions",
        "ageing.evaluate:evaluate_reconstruction",
    ),
}


@command
def main(argv=None):
    from paddle_sam.core.command import parse
    from paddle_sam.errors import ConfigError

    argv = list(sys.argv[1:] if argv is None else argv)
    kind = argv.pop(0) if argv else ""
    if kind in ("-h", "--help"):
        print(__doc__)
        return 0
    if kind not in KINDS:
        raise ConfigError(f"name what to evaluate, one of {', '.join(KINDS)}; found {kind!r}")
    options, evaluate = (pkgutil.resolve_name(f"paddle_sam.{name}") for name in KINDS[kind])
    prog = f"evaluate.py {kind}"
    stargan2 = kind == "stargan2"
    config = options(["--mode", "eval", *argv], __doc__, prog) if stargan2 else None
    results = evaluate(config or parse(options, argv, options.__doc__, prog))
    print(json.dumps(results, indent=2))
    return 1 if results.get("failed") else 0


if __name__ == "__main__":
    sys.exit(main())
