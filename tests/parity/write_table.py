"""Measure parity at full size and write docs/parity.md: python -m tests.parity.write_table"""

import platform
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import paddle

from tests.parity.cases import CASES, Comparison, expected
from tests.parity.training_case import training_step

PAGE = Path(__file__).resolve().parents[2] / "docs" / "parity.md"
TEXT = Path(__file__).with_name("parity_page.md")


def alignment() -> list[Comparison]:
    """The FFHQ crop of the public-domain portrait, in grey levels."""
    from skimage import data

    from paddle_sam.data.alignment import CropSettings, align_faces
    from paddle_sam.models.face_landmarks import FaceLandmarker

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


def main() -> None:
    rows = alignment()
    with tempfile.TemporaryDirectory() as folder:
        with paddle.no_grad():
            for case in CASES:
                rows += _shown(case(Path(folder)))
        rows += _shown(training_step(Path(folder)))
    lines = ["| network | quantity | largest error | tolerance |", "| --- | --- | --- | --- |"]
    lines += [f"| {r.network} | {r.quantity} | {r.error:.1e} | {r.tolerance:.0e} |" for r in rows]
    machine = f"Paddle {paddle.__version__}, float32, CPU ({platform.machine()})"
    page = TEXT.read_text().replace("{table}", "\n".join(lines)).replace("{machine}", machine)
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page)
    print(f"written: {PAGE}")


def _shown(comparisons: Iterable[Comparison]) -> list[Comparison]:
    found = []
    for comparison in comparisons:
        found.append(comparison)
        print(comparison, flush=True)
    return found


if __name__ == "__main__":
    main()
