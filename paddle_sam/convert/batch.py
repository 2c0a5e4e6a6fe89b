"""Convert several files, one failure not stopping the others, and say what was done."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from paddle_sam.convert.convert import Report, convert_file, published_suffix, revert_file
from paddle_sam.errors import ConfigError, PaddleSamError

COLUMNS = ("read", "transposed", "renamed", "dropped", "written")


def convert_files(
    paths: Sequence[str], output: str | None = None, reverse: bool = False, force: bool = False
) -> list[Report]:
    """Convert every file in `paths` and print a table; failures are printed as they happen.

    Args:
        paths: torch files, or with `reverse` weight files of this package.
        output: folder for the results; None puts each beside its source.
        reverse: write torch files.
        force: replace results that exist.

    Returns:
        one report per converted file; fewer than `paths` means that some failed.
    """
    targets = [_target(Path(path), output, reverse) for path in paths]
    reports = []
    for path, target in zip(paths, targets, strict=True):
        try:
            if targets.count(target) > 1:
                raise ConfigError(f"{path}: two files would become {target}; use two --output")
            if target.exists() and not force:
                raise ConfigError(f"{path}: {target} exists already; --force replaces it")
            reports.append((revert_file if reverse else convert_file)(path, target))
        except PaddleSamError as error:
            print(f"error: {error}", file=sys.stderr)
    if reports:
        print(as_table(reports))
    return reports


def as_table(reports: Sequence[Report]) -> str:
    """A text table of reports: tensors by what happened to them, bytes, sha256, where."""
    rows = [("file", "kind", *COLUMNS, "bytes", "sha256", "written to")]
    for report in reports:
        counts = [str(report.counts[column]) for column in COLUMNS]
        facts = (f"{report.bytes:,}", report.sha256, str(report.output))
        rows.append((report.source.name, report.kind, *counts, *facts))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines += [
        f"{report.source.name}: not carried over: {', '.join(report.not_carried)} (training state)"
        for report in reports
        if report.not_carried
    ]
    return "\n".join(lines)


def _target(path: Path, output: str | None, reverse: bool) -> Path:
    suffix = published_suffix(path) if reverse else ".pdparams"
    return (path.parent if output is None else Path(output)) / f"{path.stem}{suffix}"
