"""The photographs of the published comparison, picked out of a copy of CelebA or CelebA-HQ.

Two collections number their images independently: 866 of CelebA-HQ is another person than 866 of
CelebA. Copies also name them differently (866.jpg, 00866.jpg, 000866.jpg), so the name alone does
not tell which is meant; the shape of the image does.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

from paddle_sam.core.decoding import IMAGE_BYTES, open_image
from paddle_sam.core.files import atomic_path, read_bytes
from paddle_sam.errors import ConfigError, ImageError
from paddle_sam.options import Options, option

REPOSITORY = Path(__file__).resolve().parents[2]
_SUFFIXES = (".jpg", ".jpeg", ".png")
CELEBA_SIZE = (178, 218)  # of img_align_celeba; CelebA-HQ is square


@dataclasses.dataclass(frozen=True)
class WantedImage:
    """An image of the comparison: the name it is published under, number and collection."""

    name: str
    number: int
    collection: str

    def fits(self, size: tuple[int, int]) -> bool:
        if self.collection == "CelebA":
            return size == CELEBA_SIZE
        return size[0] == size[1]

    def __str__(self):
        return f"{self.name} (number {self.number} of {self.collection})"


PUBLISHED = (
    *(WantedImage(f"{number}.jpg", number, "CelebA-HQ") for number in (866, 1287, 2468)),
    *(WantedImage(f"{number:06}.jpg", number, "CelebA") for number in (431, 1092, 198650)),
)


@dataclasses.dataclass(frozen=True)
class FillOptions(Options):
    """Options of `scripts/fill_celeba_test.py`."""

    data_path: str = option("", "folder to look in")
    output_path: str = option("", "folder for the images (default: the repository's CelebA_test)")

    def check(self):
        if not self.data_path:
            raise ConfigError("--data_path: name a folder of CelebA or CelebA-HQ")


def fill(options: FillOptions) -> int:
    """Do what `fill_celeba_test` does, say what is missing, and return the exit status."""
    target = Path(options.output_path or REPOSITORY / "CelebA_test")
    copied, missing = fill_celeba_test(Path(options.data_path), target)
    print(f"copied to {target}: {', '.join(path.name for path in copied)}")
    if missing:
        print(f"not in {options.data_path}: {', '.join(map(str, missing))}")
    return 1 if missing else 0


def fill_celeba_test(source: Path, target: Path) -> tuple[list[Path], list[WantedImage]]:
    """Copy the published comparison's images from `source`, at any depth, into `target`.

    Returns the files now in `target`, and the images that `source` does not hold.

    Raises:
        ImageError: `source` is not a folder or holds none of them.
    """
    if not source.is_dir():
        raise ImageError(f"--data_path: expected a folder of CelebA images, found {source}")
    candidates = _candidates(source, {wanted.number for wanted in PUBLISHED})
    copied, missing = [], []
    for wanted in PUBLISHED:
        fitting = [path for path, size in candidates.get(wanted.number, []) if wanted.fits(size)]
        if not fitting:
            missing.append(wanted)
            continue
        path = target / Path(wanted.name).with_suffix(fitting[0].suffix.lower())
        with atomic_path(path) as temporary:
            shutil.copyfile(fitting[0], temporary)
        copied.append(path)
    if not copied:
        raise ImageError(
            f"{source}: found none of the images; expected"
            f" {', '.join(map(str, missing))}. Give the folder of img_align_celeba"
            " (178 x 218 pixels) or of CelebA-HQ (square)."
        )
    return copied, missing


def _candidates(source: Path, numbers: set[int]) -> dict[int, list[tuple[Path, tuple[int, int]]]]:
    """Find colour images named by one of the numbers, with their sizes, the largest first."""
    found: dict[int, list] = {}
    for folder, _, names in os.walk(source):
        for name in names:
            path = Path(folder, name)
            if not (path.stem.isdecimal() and path.suffix.lower() in _SUFFIXES):
                continue
            if (number := int(path.stem)) in numbers and (size := _colour_size(path)):
                found.setdefault(number, []).append((path, size))
    for paths in found.values():
        paths.sort(key=lambda entry: (-entry[1][0], str(entry[0])))
    return found


def _colour_size(path: Path) -> tuple[int, int] | None:
    """Return width and height; None for other than colour images, such as CelebAMask-HQ's masks."""
    try:
        with open_image(read_bytes(path, IMAGE_BYTES)) as image:
            return image.size if image.mode == "RGB" else None
    except (OSError, SyntaxError):
        return None
