"""The dial `--keep`: how much of the photograph a result keeps.

A generator cannot reproduce a face exactly: what its inversion of the photograph lacks is lost in
every aged picture. The dial adds a share a of it back. With photo, inversion and aged picture at
the generator's resolution,

    change = aged + a (photo - inversion) - photo,

and result = photo + mask * enlarged(change), at the photograph's own resolution. Of the coarse
shading the share a^2 comes back, of finer structure a^(1/2): what makes a face this person's lies
in the finer structure, what makes it old or young in both. The frequencies that the generator
cannot render stay those of the photograph, as does what lies outside of the face: hair, the arms of
glasses, hands, background. a = 0 is not the end of this formula but the generator's picture as it
is, which is the published behaviour.
"""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter
from scipy.spatial import ConvexHull

from paddle_sam.core.images import resize
from paddle_sam.faces.alignment import AlignedFace, CropSettings, cut_out
from paddle_sam.faces.paste import resampled

LONGEST = 1024  # side of results, in pixels
COLOUR = 0.5  # share of what ageing changes in colour, not in brightness, which blotches most
# Shares kept by default, by the years between the face's own age and the target; between them they
# are interpolated. docs/ageing.md has the measurements that they were chosen by.
GAPS, SHARES = (0.0, 20.0, 45.0), (0.8, 0.66, 0.64)
UNKNOWN_GAP = 20.0  # where the face's own age is not known

_COARSE = 16  # side of the picture that holds the coarse shading
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_MASK_SIDE = 128
_SOFTNESS = 0.045  # deviation of the mask's border, as a share of the crop's side
_FOREHEAD = 0.37  # how far the brows are raised, as a share of the way from chin to eyes
# Where a face has no landmarks: the ellipse that a usual face fills, in distances of the eyes.
_ELLIPSE_CENTRE, _ELLIPSE_AXES, _MOUTH = 0.42, (1.16, 1.49), 1.08


def default_share(gap: float) -> float:
    """Return the share that is kept where a face is aged by `gap` years, at least 0.

    >>> round(default_share(0), 2), round(default_share(60), 2)
    (0.8, 0.64)
    """
    return float(np.interp(gap, GAPS, SHARES))


class FaceDial:
    """Blends renderings of one face into the photograph it was cut from.

    Args:
        photo: uint8 [H, W, 3].
        face: cut from it.
        crop: how it was cut.
        inversion: the generator's picture of the face as it is, uint8 [S, S, 3].
        own_age: apparent age of the face in years, if known.
        keep: share of what the inversion lacks; None chooses it by the change of age.
        side: of the results; None for the face's own in the photograph, from S to `LONGEST`.
    """

    def __init__(
        self,
        photo: np.ndarray,
        face: AlignedFace,
        crop: CropSettings,
        inversion: np.ndarray,
        own_age: float | None = None,
        keep: float | None = None,
        side: int | None = None,
    ):
        self._photo, self._face, self._own_age, self._keep = photo, face, own_age, keep
        size = len(inversion)
        found = min(max(round(float(np.hypot(*(face.quad[3] - face.quad[0])))), size), LONGEST)
        self.side = side or found
        # A generator that renders more than the encoder sees is compared with the photograph.
        self._small = self._at(size).astype(np.float32) if size > crop.size else None
        if self._small is None:
            self._small = resize(face.image, size).astype(np.float32)
        lost = self._small - inversion
        self._coarse = resampled(resampled(lost, min(_COARSE, size)), size)
        self._fine = lost - self._coarse
        self.mask = face_mask(face, crop)

    def share(self, age: float) -> float:
        """Return the share kept at a target age."""
        if self._keep is not None:
            return self._keep
        known = self._own_age is not None
        return default_share(abs(age - self._own_age) if known else UNKNOWN_GAP)

    def change(self, aged: np.ndarray, age: float, keep: float | None = None) -> np.ndarray:
        """Return what to add to the face, float32 [S, S, 3] in grey levels.

        `aged` is the rendering at the target age, uint8 [S, S, 3]; `keep` replaces the share that
        the dial was made with.
        """
        share = self.share(age) if keep is None else keep
        change = aged + share**2 * self._coarse + share**0.5 * self._fine - self._small
        grey = (change @ _LUMA)[..., None]
        return grey + COLOUR * (change - grey)

    def shown(self, change: np.ndarray) -> np.ndarray:
        """Return the crop with a change of the face, uint8 [side, side, 3]."""
        base, mask = self._base
        return np.rint(base + mask * resampled(change, self.side)).clip(0, 255).astype(np.uint8)

    @property
    def picture(self) -> np.ndarray:
        """The crop as the photograph has it, uint8 [side, side, 3]."""
        return self._base[0].astype(np.uint8)

    @functools.cached_property
    def _base(self) -> tuple[np.ndarray, np.ndarray]:
        """The crop at the side of the results, and its mask [side, side, 1]."""
        mask = resampled(self.mask[..., None], self.side).clip(0, 1)
        return self._at(self.side).astype(np.float32), mask

    def _at(self, side: int) -> np.ndarray:
        # `cut_out` counts from the centre of the first pixel.
        return cut_out(self._photo, self._face.quad - 0.5, side).image


def face_mask(face: AlignedFace, crop: CropSettings) -> np.ndarray:
    """Return where a crop shows the face, with a soft border: float32 [128, 128] in [0, 1].

    That is the convex hull of the landmarks and a forehead above the brows, without the opening of
    the mouth: teeth and lips that do not match show through each other. Where the landmarks are
    not known it is the ellipse that a usual face fills.
    """
    picture = Image.new("L", (_MASK_SIDE, _MASK_SIDE))
    draw, mouth = ImageDraw.Draw(picture), None
    if face.landmarks is None:
        eyes = 1 / (4 * crop.scale)  # their distance; the crop's half side is twice that
        middle = 0.5 - crop.offset * _MOUTH * eyes + _ELLIPSE_CENTRE * eyes
        across, down = (axis * eyes for axis in _ELLIPSE_AXES)
        box = np.array([0.5 - across, middle - down, 0.5 + across, middle + down])
        draw.ellipse((box * _MASK_SIDE).tolist(), fill=255)
    else:
        top_left, bottom_left, _, top_right = face.quad
        axes = np.stack([top_right - top_left, bottom_left - top_left], axis=1)
        points = (face.landmarks + 0.5 - top_left) @ np.linalg.inv(axes).T
        forehead = (points[36:48].mean(axis=0) - points[8]) * _FOREHEAD
        outline = np.concatenate([points[:17], points[17:27] + forehead])
        hull = outline[ConvexHull(outline).vertices] * _MASK_SIDE
        draw.polygon([tuple(point) for point in hull], fill=255)
        mouth = points[60:68] * _MASK_SIDE
    mask = gaussian_filter(np.asarray(picture, np.float32) / 255, _SOFTNESS * _MASK_SIDE)
    if mouth is not None:
        draw.rectangle((0, 0, _MASK_SIDE, _MASK_SIDE), fill=0)
        draw.polygon([tuple(point) for point in mouth], fill=255)
        mask *= 1 - gaussian_filter(np.asarray(picture, np.float32) / 255, 1.0)
    return mask
