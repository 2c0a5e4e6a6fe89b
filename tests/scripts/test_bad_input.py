"""Broken and odd input, as a user meets it: the exact words of the error, never a traceback.

One table of photographs and one of weight files, each through the command a user would type.
"""

import io
import os
import pickle
import re
import zipfile
import zlib

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from paddle_sam.core.weights import WeightFile, find_weight
from scripts.animate import main as animate
from scripts.edit import main as edit
from scripts.inference import main as inference
from scripts.inference_side_by_side import main as side_by_side
from scripts.project import main as project
from scripts.reference_guided_inference import main as reference_guided
from scripts.style_mixing import main as style_mixing

FACE = skimage.data.astronaut()
STATUS_FAILED = 2


def encoded(image, file_format="PNG", **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, file_format, **options) if isinstance(
        image, np.ndarray
    ) else image.save(stream, file_format, **options)
    return stream.getvalue()


def rotated_by_exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.fromarray(np.rot90(FACE)), "JPEG", exif=exif)


def with_alpha() -> bytes:
    return encoded(np.dstack([FACE, np.full(FACE.shape[:2], 255, np.uint8)]))


def sixteen_bit_grey() -> bytes:
    grey = FACE.mean(axis=2)
    return encoded(Image.fromarray((grey * 257).astype(np.uint16)))


def huge_header() -> bytes:
    data = bytearray(encoded(FACE))
    data[16:24] = (60000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


# Odd photographs that must give a strip: name, bytes.
USABLE = {
    "grey.png": lambda: encoded(FACE[..., 1]),
    "palette.png": lambda: encoded(Image.fromarray(FACE).convert("P")),
    "alpha.png": with_alpha,
    "cmyk.jpg": lambda: encoded(Image.fromarray(FACE).convert("CMYK"), "JPEG"),
    "sixteen_bit.png": sixteen_bit_grey,
    "turned_by_exif.jpg": rotated_by_exif,
    "jpeg_named_png.png": lambda: encoded(FACE, "JPEG"),
    "animation.gif": lambda: encoded(Image.fromarray(FACE).convert("P"), "GIF"),
    "large.jpg": lambda: encoded(Image.fromarray(FACE).resize((2200, 2200)), "JPEG"),
    "small.png": lambda: encoded(Image.fromarray(FACE[:240, 100:340]).resize((120, 120))),
}

# Photographs that must be reported: name, bytes, words of the message.
BROKEN = {
    "empty.jpg": (lambda: b"", "empty"),
    "cut.jpg": (lambda: encoded(FACE, "JPEG")[:9000], "truncated"),
    "cut.png": (lambda: encoded(FACE)[:90000], "truncated"),
    "page.jpg": (lambda: b"<!DOCTYPE html><html>404</html>", "HTML page"),
    "text.png": (lambda: b"hello, this is a text", "found no image"),
    "noise.png": (lambda: bytes(np.random.default_rng(0).bytes(4000)), "found no image"),
    "huge.png": (huge_header, "absurd size"),
    "document.jpg": (lambda: b"%PDF-1.7 ...", "PDF"),
    "no_face.png": (lambda: encoded(skimage.data.camera()), "found no face.*--no_align"),
    "black.png": (lambda: encoded(np.zeros((300, 300, 3), np.uint8)), "found no face"),
    "one_pixel.png": (lambda: encoded(FACE[:1, :1]), "found no face"),
    "program.jpg": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\nshowpage", "PostScript"),
}


@pytest.mark.parametrize("name", USABLE)
def test_odd_photographs_give_a_strip(tmp_path, capsys, name):
    (tmp_path / name).write_bytes(USABLE[name]())
    status = side_by_side(
        ["--data_path", str(tmp_path / name), "--exp_dir", str(tmp_path / "out")]
        + ["--target_age", "20,80"]
    )
    assert status == 0, capsys.readouterr().err
    (strip,) = (tmp_path / "out" / "inference_side_by_side").iterdir()
    side = 448 if name == "large.jpg" else 128  # the face's own, or the smallest tile
    assert Image.open(strip).size[0] == 3 * side


@pytest.mark.parametrize("name", BROKEN)
def test_unusable_photographs_are_explained(tmp_path, capsys, name):
    make, words = BROKEN[name]
    (tmp_path / name).write_bytes(make())
    status = inference(["--data_path", str(tmp_path / name), "--exp_dir", str(tmp_path / "out")])
    message = capsys.readouterr().err
    assert status == STATUS_FAILED
    assert name in message
    assert re.search(words, message), message
    assert "Traceback" not in message


def test_a_folder_with_broken_files_finishes_the_others(tmp_path, capsys):
    photos = tmp_path / "photos"
    (photos / "deeper").mkdir(parents=True)
    good = ["grey.png", "deeper/cmyk.jpg", "animation.gif"]
    bad = ["cut.jpg", "deeper/page.jpg", "no_face.png", "empty.jpg"]
    for path in good:
        (photos / path).write_bytes(USABLE[path.rsplit("/")[-1]]())
    for path in bad:
        (photos / path).write_bytes(BROKEN[path.rsplit("/")[-1]][0]())
    status = side_by_side(
        ["--data_path", str(photos), "--exp_dir", str(tmp_path / "out"), "--target_age", "30"]
    )
    out, err = capsys.readouterr()
    assert status == 1
    assert "3 of 7 photographs" in out
    results = tmp_path / "out" / "inference_side_by_side"
    written = {str(p.relative_to(results)) for p in results.rglob("*") if p.is_file()}
    assert written == {"grey.png", "deeper/cmyk.jpg", "animation.png"}
    assert all(f"failed: {photos / path}: " in err for path in bad)
    assert (tmp_path / "out" / "contact_sheet_1.jpg").is_file()


def test_names_are_only_data(tmp_path, capsys):
    """Not UTF-8, with line breaks, as long as names may be: every photograph has its result."""
    photos = tmp_path / "photos"
    photos.mkdir()
    names = [b"stra\xdfe.png", b"two\nlines.png", ("\u7167" * 80).encode() + b".png", b"-x.png"]
    for name in names:
        (photos / os.fsdecode(name)).write_bytes(encoded(FACE))
    arguments = ["--data_path", str(photos), "--exp_dir", str(tmp_path / "out"), "--report"]
    assert side_by_side([*arguments, "--target_age", "30"]) == 0, capsys.readouterr().err
    results = tmp_path / "out" / "inference_side_by_side"
    assert sorted(os.fsencode(path.name) for path in results.iterdir()) == sorted(names)


def test_a_name_without_room_for_the_results_is_one_failure(tmp_path, capsys):
    """`a.jpg` and `a.png` keep their suffixes: names of results are longer than those of inputs."""
    photos = tmp_path / "photos"
    photos.mkdir()
    long = "\u7167" * 83 + "ab"
    for name in (f"{long}.png", f"{long}.jpg", "z.png"):
        (photos / name).write_bytes(encoded(FACE))
    arguments = ["--data_path", str(photos), "--exp_dir", str(tmp_path / "out")]
    assert side_by_side([*arguments, "--target_age", "30"]) == 1
    out, err = capsys.readouterr()
    assert "1 of 3 photographs" in out
    assert err.count("failed: ") == 2 and "would have" in err and "space" not in err
    assert [p.name for p in (tmp_path / "out/inference_side_by_side").iterdir()] == ["z.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_among_photographs_is_one_failure(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(encoded(FACE))
    os.mkfifo(tmp_path / "photos" / "b.png")
    arguments = ["--data_path", str(tmp_path / "photos"), "--exp_dir", str(tmp_path / "out")]
    assert side_by_side([*arguments, "--target_age", "30"]) == 1
    assert "b.png: could not be read (it is a named pipe" in capsys.readouterr().err


def weights_of(kind):
    """Weight files that inference cannot use: name, bytes or a function that writes them."""
    whole = find_weight("sam_mini").read_bytes()
    stream = io.BytesIO()
    torch.save({"state_dict": {}}, stream)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr("a.txt", "x")
    return {
        "truncated": whole[: len(whole) // 2],
        "empty": b"",
        "web page": b"<html>quota exceeded</html>",
        "torch": stream.getvalue(),
        "foreign pickle": pickle.dumps({"linear_0.w_0": np.zeros(3)}),
        "code": pickle.dumps({"format": print}),
        "zip": archive.getvalue(),
        "photograph": encoded(FACE, "JPEG"),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("truncated", "truncated or damaged"),
        ("empty", "the file is empty"),
        ("web page", "web page, not a weight file"),
        ("torch", "PyTorch file; convert it first: python convert/convert_weights.py"),
        ("foreign pickle", "not a weight file of paddle_sam"),
        ("code", "refused.*print"),
        ("zip", "PyTorch file"),
        ("photograph", "truncated or damaged|not a weight file"),
    ],
)
def test_unusable_weight_files_are_explained(tmp_path, capsys, kind, words):
    path = tmp_path / "model.pdparams"
    path.write_bytes(weights_of(kind))
    assert_refused(["--checkpoint_path", str(path)], tmp_path, capsys, words)


def changed(change):
    def write(path):
        saved = WeightFile.read(find_weight("sam_mini"))
        change(saved.networks["sam"])
        saved.write(path)

    return write


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (changed(lambda n: n.state.pop("latent_avg")), "1 missing.*latent_avg"),
        (changed(lambda n: n.state.update(extra=np.zeros(1))), "1 unknown.*extra"),
        (changed(lambda n: n.state.update(latent_avg=np.zeros((4, 4)))), "another shape"),
        (changed(lambda n: setattr(n, "network", "diffusion")), "unknown network 'diffusion'"),
    ],
)
def test_weight_files_that_do_not_fit_are_explained(tmp_path, capsys, write, words):
    write(tmp_path / "model.pdparams")
    assert_refused(["--checkpoint_path", str(tmp_path / "model.pdparams")], tmp_path, capsys, words)


def test_inputs_are_looked_for_before_weights_are_read(tmp_path, capsys):
    """Of a missing photograph and a damaged weight file the photograph is reported."""
    (tmp_path / "model.pdparams").write_bytes(b"damaged")
    model = ["--checkpoint_path", str(tmp_path / "model.pdparams")]
    (tmp_path / "list.txt").write_text("nobody.png\n")
    references = ["--ref_images_paths_file", str(tmp_path / "list.txt")]
    for command, arguments, missing in [
        (inference, ["--data_path", "nowhere"], "nowhere"),
        (side_by_side, ["--data_path", "nowhere"], "nowhere"),
        (animate, ["--data_path", "nowhere"], "nowhere"),
        (edit, ["--data_path", "nowhere"], "nowhere"),
        (style_mixing, ["--data_path", "nowhere"], "nowhere"),
        (project, ["--data_path", "nowhere"], "nowhere"),
        (reference_guided, references, "nobody.png"),
        (inference, ["--latent", "face.npz"], "face.npz"),
        (edit, ["--directions", "mine.npz"], "mine.npz"),
        (inference, ["--identity_path", "identity.pdparams"], "identity.pdparams"),
    ]:
        assert command([*model, *arguments]) == STATUS_FAILED
        assert f"{missing}: there is no such file" in capsys.readouterr().err, command.__module__


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--checkpoint_path", "nowhere.pdparams"], "nowhere.pdparams: there is no such file"),
        (["--data_path", "nowhere"], "nowhere: there is no such file or folder"),
        (["--target_age", "20,130"], "--target_age: expected ages from 0 to 100, found 130"),
        (["--target_age", "young"], "--target_age: expected ages such as.*'young'"),
        (["--target_age", "60-20"], "rising years"),
        (["--test_batch_size", "-1"], "test_batch_size"),
        (["--data_path", ""], "--data_path: found an empty value"),
        (["--checkpoint_path= "], "--checkpoint_path: found an empty value"),
        (["--target_age", "9" * 5000], "--target_age: expected ages such as"),
        (["--device", "tpu"], "--device: expected auto, cpu, gpu"),
        (["--device", "gpu:7"], "--device: gpu:7 is not there"),
    ],
)
def test_impossible_options_are_explained(tmp_path, capsys, arguments, words):
    assert_refused(arguments, tmp_path, capsys, words)


def test_another_network_cannot_age(tmp_path, capsys):
    path = str(find_weight("age_mini"))
    assert_refused(["--checkpoint_path", path], tmp_path, capsys, "holds an age regressor")


def test_results_that_cannot_be_written_are_explained(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    arguments = ["--exp_dir", str(tmp_path / "file" / "below")]
    assert side_by_side(arguments) == STATUS_FAILED
    out, err = capsys.readouterr()
    assert "could not be written" in err and "is a file; choose another folder" in err
    assert "photographs, faces" not in out, "called done what could not be written"
    assert (tmp_path / "file").read_text() == "in the way"


def assert_refused(arguments, tmp_path, capsys, words, exp_dir=True):
    """The command ends with status 2 and one error that says `words`; nothing is written."""
    if exp_dir:
        arguments = [*arguments, "--exp_dir", str(tmp_path / "out")]
    assert side_by_side(arguments) == STATUS_FAILED
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert re.search(words, message), message
    assert not (tmp_path / "out").exists()
