"""Arguments of the Python functions that cannot work are refused by their names, at once."""

import math

import numpy as np
import pytest

import paddle_sam
from paddle_sam.errors import ConfigError
from paddle_sam.networks.image_features import LPIPS

PHOTO = np.zeros((8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("function", "given", "words"),
    [
        ("animate", {"photo": PHOTO, "seconds": -1}, "seconds: .* at least 0, found -1"),
        ("animate", {"photo": PHOTO, "seconds": math.inf}, "seconds: .* found inf"),
        ("animate", {"photo": PHOTO, "size": -5}, "size: .* at least 0, found -5"),
        ("animate", {"photo": PHOTO, "fps": math.nan}, "fps: .* at least 0.001, found nan"),
        ("invert", {"images": []}, "images: expected at least one, found none"),
        ("invert", {"images": PHOTO, "steps": -1}, "steps: .* at least 0, found -1"),
        ("invert", {"images": PHOTO, "batch_size": 0}, "batch_size: .* at least 1, found 0"),
        ("invert", {"images": PHOTO, "resize_factors": 0}, "resize_factors: .* at least 1"),
        ("project", {"images": PHOTO, "step": -1}, "step: .* at least 0, found -1"),
        ("project", {"images": PHOTO, "start_lr": math.nan}, "start_lr: .* found nan"),
        ("tune", {"image": PHOTO, "codes": None, "step": -1}, "step: .* at least 0, found -1"),
        ("tune", {"image": PHOTO, "codes": None, "locality": -0.1}, "locality: .* found -0.1"),
    ],
)
def test_what_cannot_work_is_refused_by_its_name(function, given, words):
    with pytest.raises(ConfigError, match=f"^{words}"):
        getattr(paddle_sam, function)(**given)


def test_a_code_that_a_generator_does_not_have_is_refused_by_its_name():
    with pytest.raises(ConfigError, match="^latent_level: this model has the codes 0 to 9, found"):
        paddle_sam.project(PHOTO, latent_level=[99], step=0, lpips=LPIPS("alex"))
