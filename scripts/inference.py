"""One folder of results per age: EXP_DIR/inference_results/AGE/NAME.

With --couple_outputs each result is also written beside its input under inference_coupled/.
Photographs are aligned first; a file that cannot be used is reported, and does not stop the others.
Exit status: 0 all done, 1 some failed, 2 none.

    python scripts/inference.py --data_path photos --exp_dir results --target_age 10,70
"""

from paddle_sam.core.command import script

main = script(
    __doc__,
    "paddle_sam.ageing.options:FolderPerAgeOptions",
    "paddle_sam.ageing.run:folder_per_age",
)

if __name__ == "__main__":
    raise SystemExit(main())
