"""Measure which age to ask a model for: `scripts/evaluate.py calibration`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from paddle_sam.ageing.calibration import Calibration
from paddle_sam.ageing.eval_options import CalibrationOptions
from paddle_sam.ageing.options import AgeingOptions, PhotoOptions
from paddle_sam.ageing.pipeline import EMBEDDED_DEFAULT
from paddle_sam.ageing.run import AgeingRun
from paddle_sam.core.weight_file import WeightFile
from paddle_sam.core.weights import find_weight
from paddle_sam.errors import ImageError
from paddle_sam.faces.paste import paste
from paddle_sam.metrics.judges import AGE_JUDGE, Judges

ASKED = np.arange(0.0, 101.0, 10.0)


def calibrate(options: CalibrationOptions) -> dict:
    """Have a judge read the model's own pictures of photographs at the ages 0, 10, ..., 100.

    Returns:
        the curve, and how many faces were read.

    Raises:
        PaddleSamError: an option or a judge cannot be used, or no face could be read.
    """
    judges = Judges()
    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(PhotoOptions)}
    run = AgeingRun(AgeingOptions(**given, keep="0", raw_age=True))
    rows = []
    for result in run.aged_photos(ASKED.tolist()):
        for patches in result.patches:
            pictures = (paste(result.photo.pixels, [patch]) for patch in patches)
            readings = [judges(picture) for picture in pictures]
            rows.append([np.nan if one is None else one.age for one in readings])
    if not rows or np.isnan(rows).all(axis=0).any():
        raise ImageError(f"{options.data_path or 'portrait'}: the judge found no face to read")
    curve = Calibration.fitted(ASKED, np.nanmean(rows, axis=0), AGE_JUDGE)
    for asked, seen in zip(curve.asked, curve.seen, strict=True):
        print(f"asked for {asked:3.0f}, looks {seen:4.1f}")
    if options.output:
        file = WeightFile.read(options.checkpoint_path or find_weight(EMBEDDED_DEFAULT))
        dataclasses.replace(file, calibration=curve.entry()).write(Path(options.output))
        print(f"weights with the curve: {options.output}")
    return {"faces": len(rows), **curve.entry()}
