"""How good single pictures of faces are, and how much of a photograph is kept around the face."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.spatial import Delaunay
from scipy.special import gamma

from paddle_sam.core.images import check_image
from paddle_sam.errors import ConfigError, check_shape

_BLOCK = 96  # pixels; NIQE looks at blocks of this side
_SIGMA = 7 / 6  # of its Gaussian window, 7 x 7 pixels
_SHAPES = np.arange(0.2, 10.001, 0.001)
_SHAPE_RATIOS = gamma(2 / _SHAPES) ** 2 / (gamma(1 / _SHAPES) * gamma(3 / _SHAPES))
_HOPELESS = 40  # years of age error at which nothing of HCS is left


def hcs(identity: float, age_error: float) -> float:
    """Return the harmonic mean of identity, 0 to 100, and age accuracy 100 (1 - error / 40).

    The composite of Cradle2Cane (2025) for a mean age error in years; 0 from 40 years on.
    """
    accuracy = max(100 * (1 - age_error / _HOPELESS), 0.0)
    return 2 * identity * accuracy / (identity + accuracy) if identity + accuracy > 0 else 0.0


def luma(image: np.ndarray) -> np.ndarray:
    """Return the BT.601 luma, 16 to 235, float64 [H, W], of a uint8 RGB image."""
    check_image("image", image)
    return image @ np.array([65.481, 128.553, 24.966]) / 255 + 16


def sharpness(image: np.ndarray) -> float:
    """Return the variance of the Laplacian of a uint8 RGB image [H, W, 3]."""
    return float(ndimage.laplace(luma(image)).var())


def niqe(image: np.ndarray) -> float:
    """Return NIQE (Mittal, Soundararajan and Bovik 2013) of a uint8 RGB image: less is better.

    The distance between the statistics of the picture's blocks of 96 pixels and those of pristine
    photographs (the published parameters, by way of BasicSR 1.4.2). It depends on the size:
    compare pictures of one size.

    Raises:
        ConfigError: the picture holds fewer than two blocks.
    """
    rows, columns = (side // _BLOCK for side in image.shape[:2])
    if rows * columns < 2:
        raise ConfigError(f"NIQE: expected at least 96 x 192 pixels, found {image.shape[:2]}")
    grey = luma(image[: rows * _BLOCK, : columns * _BLOCK]).round()
    half = np.asarray(
        Image.fromarray(grey.astype(np.float32)).resize(
            (columns * _BLOCK // 2, rows * _BLOCK // 2), Image.Resampling.BICUBIC
        ),
        np.float64,
    )
    features = np.concatenate(
        [_block_features(grey, _BLOCK), _block_features(half, _BLOCK // 2)], axis=1
    )
    mean, covariance = _pristine()
    whole = features[~np.isnan(features).any(axis=1)]
    if len(whole) < 2:  # flat all over: nothing of a photograph in it
        return float("inf")
    difference = features[~np.isnan(features).all(axis=1)]
    difference = np.nanmean(difference, axis=0) - mean
    pooled = (covariance + np.cov(whole, rowvar=False)) / 2
    return float(np.sqrt(difference @ np.linalg.pinv(pooled) @ difference))


@functools.cache
def _pristine() -> tuple[np.ndarray, np.ndarray]:
    with np.load(Path(__file__).with_name("niqe.npz"), allow_pickle=False) as parameters:
        return parameters["mean"], parameters["covariance"]


def _block_features(grey: np.ndarray, side: int) -> np.ndarray:
    """Return 18 features for each block, [B, 18]: of the normalised pixels and their products."""
    blur = functools.partial(ndimage.gaussian_filter, sigma=_SIGMA, radius=3, mode="nearest")
    mean = blur(grey)
    deviation = np.sqrt(np.abs(blur(grey**2) - mean**2))
    normalised = (grey - mean) / (deviation + 1)
    rows = []
    for y in range(0, grey.shape[0], side):
        for x in range(0, grey.shape[1], side):
            block = normalised[y : y + side, x : x + side]
            shape, left, right = _asymmetric_gaussian(block)
            found = [shape, (left + right) / 2]
            for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
                shape, left, right = _asymmetric_gaussian(block * np.roll(block, shift, (0, 1)))
                mean_of_fit = (right - left) * gamma(2 / shape) / gamma(1 / shape)
                found += [shape, mean_of_fit, left, right]
            rows.append(found)
    return np.array(rows)


def _asymmetric_gaussian(values: np.ndarray) -> tuple[float, float, float]:
    """Fit an asymmetric generalised Gaussian by moments: shape, left and right scale."""
    values = values.ravel()
    with np.errstate(invalid="ignore", divide="ignore"):
        left = np.sqrt(np.square(values[values < 0]).mean()) if (values < 0).any() else np.nan
        right = np.sqrt(np.square(values[values > 0]).mean()) if (values > 0).any() else np.nan
        skew = left / right
        ratio = np.abs(values).mean() ** 2 / np.square(values).mean()
        ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    if np.isnan(ratio):
        return np.nan, np.nan, np.nan
    shape = _SHAPES[np.square(_SHAPE_RATIOS - ratio).argmin()]
    factor = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * factor, right * factor


def face_area(landmarks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the mask bool [H, W] of a face: the hull of its 68 landmarks and the forehead."""
    check_shape("landmarks", landmarks, (68, 2))
    # The brows moved up by the length of the nose are about where the hair begins.
    brows = landmarks[17:27] - (landmarks[33] - landmarks[27])
    hull = Delaunay(np.concatenate([landmarks, brows]))
    y, x = np.mgrid[: size[0], : size[1]]
    return hull.find_simplex(np.stack([x, y], axis=-1).reshape(-1, 2)).reshape(size) >= 0


def psnr_outside(photo: np.ndarray, result: np.ndarray, face: np.ndarray) -> float:
    """Return PSNR in dB of two uint8 images [H, W, 3] where the mask [H, W] is False.

    Infinite where they are equal; NaN where the face fills the picture.
    """
    check_shape("result", result, photo.shape)
    if face.all():
        return float("nan")
    error = np.square(photo[~face].astype(float) - result[~face]).mean()
    return float(20 * np.log10(255) - 10 * np.log10(error)) if error else float("inf")
