"""Measure parity at full size and write docs/parity.md: python -m tests.parity.write_table

It takes up to 18 GB; named cases (`python -m tests.parity.write_table training_step`) are measured
alone, and the page's other rows stay.
"""

import argparse
import contextlib
import platform
import tempfile
from pathlib import Path

import numpy as np
import paddle

from tests import ROOT
from tests.parity.cases import CASES, Comparison, expected
from tests.parity.file_cases import FILE_CASES
from tests.parity.training_case import training_step

PAGE = ROOT / "docs" / "parity.md"
TEXT = Path(__file__).with_name("parity_page.md")


def alignment(folder: Path) -> list[Comparison]:
    """The FFHQ crop of the public-domain portrait, in grey levels."""
    from skimage import data

    from paddle_sam.faces.alignment import CropSettings, align_faces
    from paddle_sam.faces.landmarks import FaceLandmarker

    want = expected("alignment_astronaut")
    landmarker = FaceLandmarker()
    image = data.astronaut()
    points = landmarker.find(image)[0].landmarks
    crop = align_faces(image, landmarker.find, CropSettings())[0].image
    keys = {name.rsplit("/", 1)[-1]: name for name in want}
    moved = float(np.abs(points - want[keys["landmarks"]]).max())
    grey = float(np.abs(crop.astype(float) - want[keys["aligned256"]]).mean())
    return [
        Comparison("alignment", "landmarks, pixels", moved, 0.0),
        Comparison("alignment", "crop, mean grey levels", grey, 1.0),
    ]


def main(argv=None) -> None:
    measures = {"alignment": alignment, **{case.__name__: case for case in [*CASES, *FILE_CASES]}}
    measures["training_step"] = training_step  # the one with gradients
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", help=f"only these of {', '.join(measures)}")
    chosen = parser.parse_args(argv).cases or list(measures)
    rows = []
    for name in chosen:
        with tempfile.TemporaryDirectory() as folder:
            gradients = contextlib.nullcontext() if name == "training_step" else paddle.no_grad()
            with gradients:
                for comparison in measures[name](Path(folder)):
                    rows.append(comparison)
                    print(comparison, flush=True)
    lines = [f"| {r.network} | {r.quantity} | {r.error:.1e} | {r.tolerance:.0e} |" for r in rows]
    if len(chosen) < len(measures):
        lines = _other_rows({row.network for row in rows}) + lines
    header = ["| network | quantity | largest error | tolerance |", "| --- | --- | --- | --- |"]
    machine = f"Paddle {paddle.__version__}, float32, CPU ({platform.machine()})"
    page = TEXT.read_text().replace("{table}", "\n".join(header + lines))
    PAGE.write_text(page.replace("{machine}", machine))
    print(f"written: {PAGE}")


def _other_rows(networks: set[str]) -> list[str]:
    """The page's present rows of other networks."""
    table = PAGE.read_text().partition("| --- | --- | --- | --- |\n")[2].partition("\n\n")[0]
    return [line for line in table.splitlines() if line.split(" | ")[0][2:] not in networks]


if __name__ == "__main__":
    main()
