"""Colour profiles small enough to write by hand, for the tests of `paddle_sam.core.images`."""

import struct

import numpy as np

# Columns are the D50 colourants of Display P3 (its published ICC profile).
P3_TO_XYZ = np.array(
    [[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]]
)
# sRGB's, adapted to D50 (the IEC 61966-2-1 profile).
SRGB_TO_XYZ = np.array(
    [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
)


def rgb_profile(to_xyz: np.ndarray, gamma: float) -> bytes:
    """A matrix profile: linear = value ** gamma, XYZ (D50) = to_xyz @ linear."""
    tags = {f"{name}TRC": _gamma(gamma) for name in "rgb"}
    tags |= {f"{name}XYZ": _xyz(column) for name, column in zip("rgb", to_xyz.T, strict=True)}
    return _profile("RGB ", "XYZ ", tags)


def grey_profile(gamma: float) -> bytes:
    return _profile("GRAY", "XYZ ", {"kTRC": _gamma(gamma)})


def cmyk_profile(lab_of_ink: dict[tuple[int, int, int, int], tuple[int, int, int]]) -> bytes:
    """A table profile: Lab of each full/no ink combination (white where not given)."""
    ramp = bytes(range(256))
    grid = bytearray()
    for corner in np.ndindex(2, 2, 2, 2):
        lightness, a, b = lab_of_ink.get(corner, (100, 0, 0))
        grid += bytes((round(lightness * 2.55), a + 128, b + 128))
    identity = struct.pack(">9i", *(65536 * np.eye(3, dtype=int)).ravel())
    table = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + identity + ramp * 4 + bytes(grid) + ramp * 3
    return _profile("CMYK", "Lab ", {"A2B0": table})


def _profile(space: str, connection_space: str, tags: dict[str, bytes]) -> bytes:
    tags = {"desc": _description(), "wtpt": _xyz((0.9642, 1.0, 0.8249))} | tags
    offset = 128 + 4 + 12 * len(tags)
    directory, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        directory += name.encode() + struct.pack(">II", offset + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    kind = b"prtr" if space == "CMYK" else b"mntr"
    header = struct.pack(">I4sI4s4s4s12x4s", offset + len(body), b"", 0x02400000, kind,
                         space.encode(), connection_space.encode(), b"acsp")  # fmt: skip
    illuminant = struct.pack(">3i", *(round(v * 65536) for v in (0.9642, 1.0, 0.8249)))
    return header.ljust(68, b"\0") + illuminant.ljust(60, b"\0") + directory + body


def _xyz(values) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(v * 65536) for v in values))


def _gamma(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))


def _description() -> bytes:
    return b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78)
