"""Files of W+ codes, as projection writes them: an `.npz` of the code and the face it stands for.

Beside it lies a `.pd`, `{"latent_code": [L, D]}` as `paddle.save` writes it, which other programs
read. It holds no picture: where one is needed, `STEM-project.png` beside it is taken. Codes that
other programs have written are read too, see `list_codes`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from paddle_sam.core.files import atomic_path, open_file, read_arrays, write_arrays
from paddle_sam.core.images import check_image, read_image
from paddle_sam.core.pickles import (
    MOST_DEPTH,
    MOST_ENTRIES,
    CountedStream,
    SafeUnpickler,
    check_size,
    read_pickle,
    read_torch_arrays,
    refusing,
)
from paddle_sam.errors import CheckpointError, check_shape, quoted

BARE = ".pd"
SUFFIXES = (".npz", ".npy", ".pt", ".pth", BARE)
# What programs call the code in a file: this one, Paddle's projector, NVIDIA's, rosinality's.
_KEYS = ("w_plus", "latent_code", "w", "latent", "latents", "codes")
_WRITER = "scripts/project.py writes such files"


@dataclasses.dataclass(frozen=True, eq=False)
class Latent:
    """A face as a code.

    w_plus: float32 [L, D]. crop: the aligned face it stands for, uint8 [S, S, 3], or None.
    projected: the crop is what a generator makes of the code, because the file holds no picture.
    """

    w_plus: np.ndarray
    crop: np.ndarray | None
    projected: bool = False


def picture_beside(path: str | os.PathLike, made_by: str = "project") -> Path:
    """Where projection, or inversion, leaves the picture that belongs to a file of a code."""
    path = Path(path)
    return path.with_name(f"{path.stem}-{made_by}.png")


def save_latent(
    path: str | os.PathLike, latent: Latent, extra: Mapping[str, np.ndarray] | None = None
) -> None:
    """Write a code with its crop, and more arrays by name; its `.pd` gets the code alone."""
    arrays = {"w_plus": latent.w_plus, "crop": latent.crop, **(extra or {})}
    write_arrays(path, arrays, compress=True)
    with atomic_path(Path(path).with_suffix(BARE)) as temporary:
        paddle.save({"latent_code": paddle.to_tensor(latent.w_plus)}, str(temporary))


def read_latent(
    path: str | os.PathLike, codes: int, dim: int, shown: bool = True, name: str = ""
) -> Latent:
    """Read a code for a model that takes `codes` codes of `dim` numbers.

    Args:
        path: a file that `list_codes` reads.
        codes, dim: the shape of the code. One of `dim` numbers, in W, is used `codes` times.
        shown: whether a crop is needed.
        name: which code of a file with several.

    Raises:
        CheckpointError: the file is missing, damaged, or belongs to another model.
    """
    path = Path(path)
    found = list_codes(path)
    if name not in found:
        raise CheckpointError(
            f"{path}: holds the codes {quoted(list(found))}, expected "
            + (f"one called {name!r}" if name else "one code alone")
        )
    code = found[name]
    if code.shape == (dim,):
        code = np.broadcast_to(code, (codes, dim))
    if code.shape != (codes, dim):
        raise CheckpointError(
            f"{path}: holds a code of shape {list(code.shape)}, this model takes"
            f" {[codes, dim]}; project with the same --checkpoint_path"
        )
    if not np.isfinite(code).all():
        raise CheckpointError(f"{path}: the code holds values that are not numbers")
    crop, projected = _crop_of(path)
    if crop is not None:
        check_shape(f"{path}: crop", crop, (None, None, 3))
        check_image(f"{path}: crop", crop)
    elif shown:
        raise CheckpointError(
            f"{path}: holds a code but not the face's picture; expected it in"
            f" {picture_beside(path)}, or give the photograph by --data_path"
        )
    return Latent(np.array(code, np.float32), crop, projected)


def list_codes(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Return the codes of a file, [D] or [L, D], by name; of a file with one, "" is its name.

    Besides the files of this package: `.npy`, `.npz`, `.pt` and `.pth` of an array [L, D],
    [N, L, D] (called 0, 1, ...), [1, D] or [D], alone or in a dict by the name of the picture; what
    pSp's family, rosinality's and NVIDIA's projectors and PTI write. Of several steps (ReStyle) the
    last is taken.

    Raises:
        CheckpointError: the file is missing, damaged, or holds something else.
    """
    path = Path(path)
    content = _content(path)
    if isinstance(content, Mapping):
        known = [key for key in _KEYS if key in content]
        if path.suffix == BARE and not known:
            raise CheckpointError(f"{path}: holds no tensor latent_code; expected a projected face")
        if known:
            content = content[known[0]]
        elif len(content) == 1 and path.suffix in (".npz", ".npy"):
            (content,) = content.values()
    if not isinstance(content, Mapping):
        return _numbered(content, str(path))
    codes = {}
    for name, value in content.items():
        where = f"{path}: {quoted(name)}"
        if isinstance(value, Mapping):
            value = next((value[key] for key in _KEYS if key in value), None)
        if isinstance(value, list) and value:
            value = value[-1]  # what ReStyle's last step came to
        numbered = _numbered(value, where)
        codes |= {
            f"{Path(str(name)).stem}{f'_{key}' * bool(key)}": one for key, one in numbered.items()
        }
    if not codes:
        raise CheckpointError(f"{path}: holds no code")
    return codes


def _content(path: Path) -> Any:
    if path.suffix in (".pt", ".pth"):
        return read_torch_arrays(path)
    if path.suffix == BARE:
        return read_pickle(path, str(path), _WRITER)
    if path.suffix == ".npy" and path.is_file():
        with contextlib.suppress(CheckpointError):
            return read_arrays(path, _WRITER)
        return _read_objects(path)
    return read_arrays(path, _WRITER)


class _Objects:
    """Stands for NumPy's type of Python objects."""

    def __setstate__(self, state):
        pass


class _Reconstructed:
    """Stands for an array of numbers or of objects, which its state tells: `value`."""

    def __init__(self, empty: np.ndarray):
        self.value: Any = empty

    def __setstate__(self, state):
        _, shape, kind, _, data = state
        if not isinstance(kind, _Objects):
            self.value.__setstate__(state)
        elif isinstance(data, list) and len(data) == int(np.prod(shape)):
            self.value = data if shape else data[0]
        else:
            raise CheckpointError("it holds an array of objects in another form than NumPy's")


class _ObjectsUnpickler(SafeUnpickler):
    """Reads arrays of Python objects too, as NumPy pickles them: lists of plain values."""

    def find_class(self, module: str, name: str) -> Callable:
        known = super().find_class(module, name)
        if (module, name) == ("numpy", "dtype"):
            return lambda kind, *_: _Objects() if kind in ("O", "O8") else known(kind)
        return (lambda *_: _Reconstructed(known())) if name == "_reconstruct" else known


def _read_objects(path: Path) -> Any:
    """What an `.npy` file of Python objects holds: dicts and lists of plain values and arrays."""
    with refusing(path, "a NumPy file of codes"), open_file(path) as stream:
        first = np.lib.format.read_magic(stream) == (1, 0)
        if first:
            np.lib.format.read_array_header_1_0(stream)
        else:
            np.lib.format.read_array_header_2_0(stream)
        walked = itertools.count()

        def unwrapped(value: Any, depth: int = 0) -> Any:
            if depth > MOST_DEPTH or next(walked) > MOST_ENTRIES:
                raise CheckpointError("it is nested too deeply, or has too many entries")
            if isinstance(value, _Reconstructed):
                return unwrapped(value.value, depth + 1)
            if isinstance(value, dict):
                return {key: unwrapped(item, depth + 1) for key, item in value.items()}
            if isinstance(value, list | tuple):
                return [unwrapped(item, depth + 1) for item in value]
            return value

        content = unwrapped(_ObjectsUnpickler(CountedStream(stream)).load())
        check_size(content, path.stat().st_size)
        return content


def _numbered(value: Any, where: str) -> dict[str, np.ndarray]:
    """The codes of one array by their number; of a single one "" is its name."""
    if isinstance(value, tuple) and len(value) == 2:
        value = value[1]  # a tensor of Paddle's with its name
    numbers = isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size
    if not numbers or value.ndim not in (1, 2, 3):
        found = f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else value
        raise CheckpointError(
            f"{where}: expected a code, numbers [L, D] or several [N, L, D], found {quoted(found)}"
        )
    if value.ndim < 3:
        return {"": value[0] if value.shape[0] == 1 else value}
    return {"": value[0]} if len(value) == 1 else {str(k): one for k, one in enumerate(value)}


def _crop_of(path: Path) -> tuple[np.ndarray | None, bool]:
    """The face that a file's code stands for, and whether it is what the generator makes of it."""
    if path.suffix == ".npz":
        crop = read_arrays(path, _WRITER).get("crop")
        if crop is not None:
            return crop, False
    pictures = [picture_beside(path, made_by) for made_by in ("project", "inversion")]
    return next((read_image(one) for one in pictures if one.is_file()), None), True
