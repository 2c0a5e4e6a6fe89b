"""Weight files, checkpoints and pickles as an attacker or a bad disk makes them, by code."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Iterator

import numpy as np

from paddle_sam.core.weights import FORMAT, FORMAT_VERSION

PLAIN = {"format": FORMAT, "format_version": FORMAT_VERSION, "kind": "test", "networks": {}}


def shared(levels: int) -> list:
    """Return a list that has 2^levels paths through `levels` lists."""
    inner: list = []
    for _ in range(levels):
        inner = [inner, inner]
    return inner


def nested(levels: int) -> bytes:
    """Return the pickle of a weight file with lists in lists in its options."""
    lists = b"]" * levels + b"a" * (levels - 1)
    return pickle.dumps(PLAIN, 2)[:-1] + b"X\x07\0\0\0options" + b"}U\x01x" + lists + b"ss."


def network(**changes) -> dict:
    """Return the content of a file with one network, an entry of it changed."""
    entry = {"network": "age_regressor", "arch": {}, "state": {"w": np.zeros(2, "float32")}}
    return PLAIN | {"networks": {"net": entry | changes}}


def forged_array(shape: tuple, dtype: str, data: bytes) -> bytes:
    """Return the pickle of an array that states another shape or type than its data have."""
    honest = pickle.dumps(np.frombuffer(b"12345678", "f8"), 2)
    state = pickle.dumps((1, shape, np.dtype(dtype), False, data), 2)[2:-1]
    start = honest.index(b"(K\x01")  # the state of the honest array
    return honest[:start] + state + b"b."


def pickles() -> Iterator[tuple[str, bytes]]:
    """Yield names and bytes of files that pass for pickles of weights."""
    yield "empty", b""
    yield "one byte", b"\x80"
    yield "text", b"hello\n"
    yield "web page", b"<!DOCTYPE html><html>"
    yield "zeros", bytes(4096)
    yield "stop", b"."
    yield "list", pickle.dumps([1])
    yield "text for a file", pickle.dumps("paddle_sam")
    yield "number", pickle.dumps(3.0)
    yield "memo of 2^31 entries", b"\x80\x04N" + b"r\xff\xff\xff\x7f" + b"."
    yield "bytearray of 2^60 bytes", b"\x80\x05\x96" + struct.pack("<Q", 1 << 60) + b"."
    yield "bytes of 2^60 bytes", b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"."
    yield "frame of 2^60 bytes", b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"."
    yield "number of 2^31 digits", b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"."
    yield "number of 9,000 digits", b"I" + b"9" * 9000 + b"\n."
    yield "pops of nothing", b"\x80\x0200000."
    yield "unknown persistent id", b"\x80\x02K\x01Q."
    yield "extension", b"\x80\x02\x82\x01."
    yield "next buffer", b"\x80\x05\x97."
    yield "call", pickle.dumps(print)
    yield "old class", b"(ios\nsystem\n."
    yield "altered stand-in", b"\x80\x02cnumpy\ndtype\n}U\x01aK\x01sb."
    for name, shape, dtype, data in (
        ("too large", (1 << 40,), "f4", b"1234"),
        ("negative", (-1,), "f4", b"1234"),
        ("objects", (1,), "O", b"12345678"),
        ("structured", (1,), [("a", "f4")], b"1234"),
        ("dates", (1,), "M8[s]", b"12345678"),
        ("wide text", (1,), "U100000000", b""),
    ):
        yield f"array {name}", forged_array(shape, dtype, data)
    for levels in (100, 100_000):
        yield f"{levels:,} nested lists", nested(levels)
    yield "2^64 paths", pickle.dumps(PLAIN | {"options": {"x": shared(64)}})
    yield "2^64 paths in training", pickle.dumps(PLAIN | {"training": {"x": shared(64)}})
    big = np.zeros(1 << 16, "float32")
    yield "one array 10,000 times", pickle.dumps(PLAIN | {"training": {"x": [big] * 10_000}})
    for value in (None, 1, "x", [], {1: 2}, {"a": None}, {"a": []}, {"a": {"state": {"w": 1}}}):
        yield f"networks {value!r}", pickle.dumps(PLAIN | {"networks": value})
    for key, values in {
        "network": (3, "diffusion", ""),
        "arch": (3, {"input_size": "large"}, {1: 2}, {"input_size": -1}, {"input_size": 10**30}),
        "state": (3, {"w": None}, {1: np.zeros(2)}, {"w": np.zeros(2, "complex64")}),
    }.items():
        for value in values:
            yield f"{key} {value!r}", pickle.dumps(network(**{key: value}))
    for key in ("kind", "latent_avg", "alignment", "options", "source", "training"):
        yield f"{key} is a number", pickle.dumps(network() | {key: 5})
    for version in (None, "1", 2, -1, 10**30):
        yield f"version {version!r}", pickle.dumps(PLAIN | {"format_version": version})
    whole = pickle.dumps(network())
    yield from ((f"cut at {n}", whole[:n]) for n in range(1, len(whole), 37))
    yield "trailing bytes", whole + b"more"


def foreign() -> Iterator[tuple[str, bytes]]:
    """Yield names and bytes of files that pass for those of PaddleGAN and NVIDIA."""
    one, matrix = np.ones(1, "f4"), np.ones((2, 2), "f4")
    lins = {f"{index}.model.1.weight": np.ones((1, 4, 1, 1), "f4") for index in range(5)}
    for name, content in {
        "networks that are lists": {"gen_ema": [1], "disc": None},
        "a generator of words": {"gen_ema": {"style.1.weight": "x", "to_rgb1.bias": one}},
        "a generator of numbers": {"gen_ema": {"style.1.weight": matrix, "to_rgb1.bias": one}},
        "a generator without axes": {"style.1.weight": np.float32(1), "to_rgb1.bias": one},
        "options that are a number": {"opts": 5, "decoder.style.1.weight": matrix},
        "options that are nested": {"opts": shared(64), "decoder.style.1.weight": matrix},
        "an average of words": {"opts": {}, "decoder.style.1.w": matrix, "latent_avg": "x"},
        "an optimizer alone": {"optim": {"w_moment1_0": one}},
        "channel weights of no network": lins,
        "channel weights without axes": dict.fromkeys(lins, one),
        "channel weights that are words": dict.fromkeys(lins, "x"),
        "features without axes": {"features.0.weight": one, "features.10.weight": one},
        "a network of StarGAN v2 alone": {"from_rgb.weight": one},
        "three empty networks": dict.fromkeys(
            ("generator", "mapping_network", "style_encoder"), {}
        ),
        "another project's tensors": {"weight": matrix},
    }.items():
        yield f"Paddle's: {name}", pickle.dumps(content)
    header = b"\x80\x02cdnnlib.tflib.network\nNetwork\n)\x81"  # a network, made without arguments
    for name, state in {
        "nothing": {},
        "words": {"variables": "x", "components": "x", "static_kwargs": "x"},
        "variables without names": {"variables": [1, 2]},
        "variables that are words": {"variables": [("4x4/Conv/weight", "x")]},
        "numbers for components": {"components": {"mapping": 1}, "variables": []},
    }.items():
        one_network = header + pickle.dumps(state, 2)[2:-1] + b"b"
        yield f"TensorFlow's: {name}", one_network + (one_network[2:] * 2) + b"\x87."
    itself = b"q\x01}X\x0a\0\0\0components}X\x01\0\0\0xh\x01ssb"
    yield "TensorFlow's: a network inside itself", header + itself + b"h\x01h\x01\x87."


def archive(compress: int, *members: tuple[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compress) as target:
        for name, data in members:
            target.writestr(name, data)
    return stream.getvalue()


def archives() -> Iterator[tuple[str, bytes]]:
    """Yield names and bytes of files that pass for PyTorch's archives."""
    yield "zip magic alone", b"PK\x03\x04"
    yield "zip of notes", archive(zipfile.ZIP_STORED, ("a.txt", b"notes"))
    yield "zip without members", archive(zipfile.ZIP_STORED)
    yield "packed gigabyte", archive(zipfile.ZIP_DEFLATED, ("x/data.pkl", bytes(1 << 26)))
    for name, data in (
        ("code", pickle.dumps(print, 2)),
        ("nothing", b""),
        ("a number", pickle.dumps(3, 2)),
        ("2^64 paths", pickle.dumps({"state_dict": shared(64)}, 2)),
        ("memo of 2^31 entries", b"\x80\x02N" + b"r\xff\xff\xff\x7f" + b"."),
        ("words for tensors", pickle.dumps({"g_ema": {"style.1.weight": "x"}}, 2)),
        ("lists for networks", pickle.dumps({"g_ema": [1], "d": None}, 2)),
        ("numbers for names", pickle.dumps({"state_dict": {1: 2, None: 3}}, 2)),
    ):
        members = [("x/data.pkl", data), ("x/byteorder", b"little"), ("x/version", b"3\n")]
        yield f"torch archive of {name}", archive(zipfile.ZIP_STORED, *members)


def flipped(data: bytes, bit: int) -> bytes:
    """Return `data` with one bit changed."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
