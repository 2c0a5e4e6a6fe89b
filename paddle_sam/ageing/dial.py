"""The dial `--keep`: how much of the photograph a result keeps.

A generator cannot reproduce a face exactly: what its inversion of the photograph lacks is lost in
every aged picture. The dial adds a share a of it back. With photo, inversion and aged picture at
the generator's resolution,

    lost = photo - inversion = coarse + middle + fine
    change = aged + a^2 coarse + a^(1/2) middle + a^(1/5) fine - photo

and result = photo + mask * enlarged(change), at the photograph's own resolution. What makes a face
this person's lies in the finer structure, what makes it old or young in all of it. Of the change in
colour only a part is taken, and that of the skin: eyes and lips keep their colours, and a grey
photograph stays grey. The frequencies
that the generator cannot render stay those of the photograph, as does what lies outside of the
face: hair, the arms of glasses, hands, background. a = 0 is not the end of this formula but the
generator's picture as it is, which is the published behaviour.

Of an older face the brightness of aged - inversion is taken as its median over 3 x 3 pixels, since
specks of single pixels show as blotches once they are enlarged, and what is finer than coarse 1.25
times, since folds fade by that. Both grow over the first 5 years, so that animations do not jump.

A child's features lie elsewhere: what the change adds at their places would stand beside the
adult's contours, which it cannot take away. So the photograph of a face that is made a child is
first moved, smoothly, by

    min(1, (20 - age) / 10, (own age - age) / 10) * (landmarks of aged - landmarks of inversion)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, median_filter
from scipy.spatial import ConvexHull

from paddle_sam.core.images import resize
from paddle_sam.faces.alignment import AlignedFace, CropSettings
from paddle_sam.faces.paste import Patch, moved, resampled

LONGEST = 1024  # side of results, in pixels
# Shares kept by default, by the years that a face is aged; between them they are interpolated.
# docs/ageing.md has the measurements that they were chosen by.
YEARS, SHARES = (-10.0, 0.0, 20.0, 30.0), (0.38, 0.6, 0.6, 0.7)
# What the photograph holds back of these years, as a share of them; it is asked for in addition.
# Above 20 years the models show another person the more they are asked for, so there it ends.
HELD_BACK_YEARS, HELD_BACK = (20.0, 30.0), (0.25, 0.0)

# Sides of the pictures that hold the coarse, and the coarse and middle structure; and the powers of
# the share by which coarse, middle and fine structure come back.
_BANDS, _POWERS = (8, 24), (2.0, 0.5, 0.2)
# Parts taken of a change in colour, not in brightness: smooth (held by a picture of 8 x 8), and
# the rest, which shows as blotches.
SMOOTH_COLOUR, COLOUR_SIDE, COLOUR = 0.8, 8, 0.3
FOLDS = 1.25  # factor on the brightness of what is finer than coarse, in older faces
OLDER = 5.0  # years older at which this, and the removal of specks, is done in full
GREY = 2.0  # mean difference of a face's colours, in grey levels, up to which it has none
FEATURES = 0.7  # part taken of a change in the brightness of eyes and lips
# The age of grown-up faces, and how many years below it, and below the own age, a photograph is
# moved all the way to a child's features.
GROWN, GROWTH = 20.0, 10.0
_SEEN = 256  # side at which renderings are looked at for landmarks, which are whole pixels there
# Side of the grid that movements are known on, the smoothness of their spline, and how near to the
# crop's edges they fade out, as a share of its side.
_GRID, _STIFFNESS, _FADE = 32, 0.1, 0.12
_BORDER = np.array([p for t in np.linspace(0, 1, 9) for p in [(t, 0), (t, 1), (0, t), (1, t)]])
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_MASK_SIDE = 128
_SOFTNESS = 0.045  # deviation of the mask's border, as a share of the crop's side
_FOREHEAD = 0.37  # how far the brows are raised, as a share of the way from chin to eyes
# Where a face has no landmarks: the ellipse that a usual face fills, in distances of the eyes.
_ELLIPSE_CENTRE, _ELLIPSE_AXES, _MOUTH = 0.42, (1.16, 1.49), 1.08


def default_share(years: float) -> float:
    """Return the share that is kept where a face is made `years` older, or younger if below 0.

    >>> round(default_share(-20), 2), round(default_share(60), 2)
    (0.38, 0.7)
    """
    return float(np.interp(years, YEARS, SHARES))


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
        overshoot: whether to ask for more than the target, see `aim`.
        landmarks_near: see `FaceLandmarker.near`; None where photographs are not moved.
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
        overshoot: bool = True,
        landmarks_near: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    ):
        self._photo, self._face, self._own_age, self._keep = photo, face, own_age, keep
        self._overshoot, self._landmarks_near = overshoot, landmarks_near
        self._inversion = inversion
        size = len(inversion)
        self.side = side or _side(face, size)
        # A generator that renders more than the encoder sees is compared with the photograph.
        self._small = self._at(size).astype(np.float32) if size > crop.size else None
        if self._small is None:
            self._small = resize(face.image, size).astype(np.float32)
        self._coloured = np.ptp(self._small, axis=-1).mean() > GREY
        lost = self._small - inversion
        pictures = [_smooth(lost, side) for side in _BANDS]
        self._bands = [
            high - low for low, high in zip([0, *pictures], [*pictures, lost], strict=True)
        ]
        self._features = resampled(feature_mask(face), size).clip(0, 1)
        self.mask = face_mask(face, crop)
        self._points = _landmarks(face)

    @property
    def nbytes(self) -> int:
        """Bytes in memory, beside the photograph and its crop, once something was shown."""
        arrays = (*self._bands, self._small, self._inversion, self._features, self.mask)
        return sum(array.nbytes for array in arrays) + 16 * self.side**2  # `_base` has four planes

    def share(self, age: float) -> float:
        """Return the share kept at a target age."""
        if self._keep is not None:
            return self._keep
        return default_share(0 if self._own_age is None else age - self._own_age)

    def aim(self, age: float) -> float:
        """Return the age, 0 to 100, that the model's picture has to look for results of `age`.

        What is kept of the photograph looks its own age: that is made up for, where it is known.
        """
        if self._own_age is None or not self._overshoot:
            return age
        years = age - self._own_age
        more = years * float(np.interp(years, HELD_BACK_YEARS, HELD_BACK))
        return min(max(age + more, 0.0), 100.0)

    def change(self, aged: np.ndarray, age: float, keep: float | None = None) -> Patch:
        """Return what becomes of the face.

        `aged` is the rendering at the target age, uint8 [S, S, 3]; `keep` replaces the share that
        the dial was made with.
        """
        share = self.share(age) if keep is None else keep
        kept = sum(share**power * band for power, band in zip(_POWERS, self._bands, strict=True))
        rest, features, mask = kept - self._small, self._features, self.mask
        shift = self._shift(aged, age)
        if shift is not None:
            rest, features = _moved(rest, shift), _moved(features, shift)
            mask = _moved(mask[..., None], shift)[..., 0]
        if self._own_age is not None and age > self._own_age:
            part = min((age - self._own_age) / OLDER, 1)
            rest = rest + part * self._without_specks(aged)
        change = aged + rest
        grey = (change @ _LUMA)[..., None]
        colour = change - grey
        smooth = _smooth(colour, COLOUR_SIDE)
        colour = self._coloured * (SMOOTH_COLOUR * smooth + COLOUR * (colour - smooth))
        change = grey * (1 - (1 - FEATURES) * features) + colour * (1 - features)
        return Patch(self._face.quad, change, mask, shift)

    def _without_specks(self, aged: np.ndarray) -> np.ndarray:
        """What to add to an older face's brightness, [S, S, 1]: its specks go, folds deepen."""
        step = (aged.astype(np.float32) - self._inversion) @ _LUMA
        calm = median_filter(step, 3)[..., None]
        step = step[..., None]
        calm += self._features * (step - calm)
        return calm + (FOLDS - 1) * (calm - _smooth(calm, _BANDS[0])) - step

    def _shift(self, aged: np.ndarray, age: float) -> np.ndarray | None:
        """How far the photograph moves, [G, G, 2] as `Patch` has it; None where it stays."""
        if self._landmarks_near is None or self._own_age is None or self._points is None:
            return None
        strength = min(1, (GROWN - age) / GROWTH, (self._own_age - age) / GROWTH)
        if strength <= 0:
            return None
        from scipy.interpolate import RBFInterpolator  # 0.1 s, for children only

        by = self._seen(aged) - self._before
        spline = RBFInterpolator(  # of thin plates; the crop's border stays
            np.concatenate([self._points + by, _BORDER]),
            np.concatenate([by, np.zeros_like(_BORDER)]),
            smoothing=_STIFFNESS,
        )
        along = (np.arange(_GRID) + 0.5) / _GRID
        grid = np.stack(np.meshgrid(along, along), axis=-1)
        shift = spline(grid.reshape(-1, 2)).reshape(grid.shape)
        inside = (np.minimum(along, 1 - along) / _FADE).clip(0, 1)
        return (strength * shift * np.outer(inside, inside)[..., None]).astype(np.float32)

    @functools.cached_property
    def _before(self) -> np.ndarray:
        return self._seen(self._inversion)

    def _seen(self, picture: np.ndarray) -> np.ndarray:
        """The landmarks [68, 2] of a rendering, 0 to 1 across and down."""
        return self._landmarks_near(resize(picture, _SEEN), self._points * _SEEN) / _SEEN

    def shown(self, patch: Patch) -> np.ndarray:
        """Return the crop with a change of the face, uint8 [side, side, 3]."""
        base, mask = self._base
        if patch.shift is not None:
            base = np.moveaxis(_moved(np.moveaxis(base, 0, -1), patch.shift), -1, 0)
            mask = resampled(patch.mask[..., None], self.side)[..., 0].clip(0, 1)
        planes = np.moveaxis(resampled(patch.values, self.side), -1, 0) * mask
        planes += base
        np.rint(planes, out=planes)
        planes.clip(0, 255, out=planes)
        return np.stack(planes.astype(np.uint8), axis=-1)

    @property
    def picture(self) -> np.ndarray:
        """The crop as the photograph has it, uint8 [side, side, 3]."""
        return np.moveaxis(self._base[0], 0, -1).astype(np.uint8)

    @functools.cached_property
    def _base(self) -> tuple[np.ndarray, np.ndarray]:
        """The crop at the side of the results, [3, side, side], and its mask [side, side]."""
        mask = resampled(self.mask[..., None], self.side)[..., 0].clip(0, 1)
        # In planes, which are computed with several times faster than interleaved colours.
        planes = np.moveaxis(self._at(self.side), -1, 0)
        return planes.astype(np.float32, order="C"), mask

    def _at(self, side: int) -> np.ndarray:
        # `cut_out` counts from the centre of the first pixel.
        return self._face.seen_in(self._photo, side)


def face_mask(face: AlignedFace, crop: CropSettings) -> np.ndarray:
    """Return where a crop shows the face, with a soft border: float32 [128, 128] in [0, 1].

    That is the convex hull of the landmarks and a forehead above the brows, without the opening of
    the mouth: teeth and lips that do not match show through each other. Where the landmarks are
    not known it is the ellipse that a usual face fills.
    """
    softness = _SOFTNESS * _MASK_SIDE
    points = _landmarks(face)
    if points is None:
        eyes = 1 / (4 * crop.scale)  # their distance; the crop's half side is twice that
        middle = 0.5 - crop.offset * _MOUTH * eyes + _ELLIPSE_CENTRE * eyes
        across, down = (axis * eyes for axis in _ELLIPSE_AXES)
        turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)[:, None]
        outline = np.hstack([0.5 + across * np.cos(turn), middle + down * np.sin(turn)])
        return _drawn([outline], softness)
    forehead = (points[36:48].mean(axis=0) - points[8]) * _FOREHEAD
    outline = np.concatenate([points[:17], points[17:27] + forehead])
    hull = outline[ConvexHull(outline).vertices]
    return _drawn([hull], softness) * (1 - _drawn([points[60:68]], softness=1))


def feature_mask(face: AlignedFace) -> np.ndarray:
    """Return where a crop shows eyes and lips: float32 [128, 128, 1] in [0, 1], soft.

    Where the landmarks are not known it is 0.
    """
    points = _landmarks(face)
    areas = [] if points is None else [points[36:42], points[42:48], points[48:60]]
    return _drawn(areas, softness=2, border=3)[..., None]


def _landmarks(face: AlignedFace) -> np.ndarray | None:
    """The landmarks [68, 2] in the crop, 0 to 1 across and down."""
    if face.landmarks is None:
        return None
    top_left, bottom_left, _, top_right = face.quad
    axes = np.stack([top_right - top_left, bottom_left - top_left], axis=1)
    return (face.landmarks + 0.5 - top_left) @ np.linalg.inv(axes).T


def _drawn(areas: list[np.ndarray], softness: float, border: int = 0) -> np.ndarray:
    """Polygons [*, 2] in the crop, drawn with a soft border: float32 [128, 128]."""
    picture = Image.new("L", (_MASK_SIDE, _MASK_SIDE))
    draw = ImageDraw.Draw(picture)
    for area in areas:
        outline = [tuple(point) for point in area * _MASK_SIDE]
        draw.polygon(outline, fill=255)
        if border:
            draw.line([*outline, outline[0]], fill=255, width=border)
    return gaussian_filter(np.asarray(picture, np.float32) / 255, softness)


def _smooth(picture: np.ndarray, side: int) -> np.ndarray:
    """What a picture of side x side pixels holds of float32 [S, S, 3]."""
    size = len(picture)
    return picture if size <= side else resampled(resampled(picture, side), size)


def _moved(picture: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """float32 [S, S, C], moved by `shift` [G, G, 2] in its sides."""
    size = len(picture)
    return moved(picture, resampled(shift, size) * size)


def aims(dials: Sequence[FaceDial | None], ages: Sequence[float]) -> np.ndarray:
    """Return which ages to render each dial's face at, [F, A], for results that look `ages`."""
    return np.array([[dial.aim(age) if dial else age for age in ages] for dial in dials])


def blend(
    images: np.ndarray, ages: Sequence[float], face: AlignedFace, dial: FaceDial | None
) -> tuple[np.ndarray, list[Patch]]:
    """Turn one face's renderings [A, S, S, 3] into results uint8 [A, R, R, 3], and their patches.

    Without a dial the renderings are the results.
    """
    if dial is None:
        return images, [Patch(face.quad, image) for image in images]
    patches = [dial.change(image, age) for image, age in zip(images, ages, strict=True)]
    return np.stack([dial.shown(patch) for patch in patches]), patches


def input_tile(photo: np.ndarray, face: AlignedFace, patch: Patch) -> np.ndarray:
    """Return what results are shown beside: with the dial the face as the photograph has it."""
    if patch.mask is None:
        return face.image
    return face.seen_in(photo, _side(face, len(face.image)))


def _side(face: AlignedFace, least: int) -> int:
    """Side of a face in its photograph, in pixels, from `least` to `LONGEST`."""
    return min(max(round(float(np.hypot(*(face.quad[3] - face.quad[0])))), least), LONGEST)
