"""The dial: what results keep of the photograph."""

import io
import json
from dataclasses import replace

import numpy as np
import paddle
import pytest
import skimage.data
from PIL import Image

from paddle_sam.ageing.dial import (
    COLOUR,
    FEATURES,
    FOLDS,
    SMOOTH_COLOUR,
    FaceDial,
    _landmarks,
    _smooth,
    default_share,
    face_mask,
    feature_mask,
)
from paddle_sam.ageing.measures import Calibration, Measures
from paddle_sam.ageing.pipeline import AgePipeline
from paddle_sam.core.images import resize
from paddle_sam.core.weights import NetworkEntry, WeightFile, find_weight
from paddle_sam.demo.app import make_app
from paddle_sam.demo.sessions import Sessions
from paddle_sam.demo.state import Demo, Model
from paddle_sam.errors import ConfigError
from paddle_sam.faces.alignment import AlignedFace, CropSettings
from paddle_sam.faces.paste import Patch, paste
from paddle_sam.networks.image_features import LPIPS
from paddle_sam.networks.sam import build_sam
from scripts.animate import main as animate
from scripts.edit import main as edit
from scripts.evaluate import main as evaluate
from scripts.inference import main as inference
from scripts.inference_side_by_side import main as side_by_side
from scripts.invert import main as invert
from scripts.project import main as project
from scripts.reference_guided_inference import main as reference_guided
from scripts.style_mixing import main as style_mixing
from tests.unit.ageing.tiny import tiny_pipeline

PORTRAIT = skimage.data.astronaut()
CROP = CropSettings(8, scale=1.0)
SQUARE = np.array([[0, 0], [0, 8], [8, 8], [8, 0]], np.float64)


def grey(level, size=8):
    return np.full((size, size, 3), level, np.uint8)


def dial(photo=150, inversion=130, **options):
    face = AlignedFace(grey(photo), SQUARE)
    return FaceDial(grey(photo), face, CROP, grey(inversion), **options)


@pytest.mark.parametrize(("keep", "want"), [(0.25, 101.25), (0.5, 105), (1.0, 120)])
def test_a_share_of_the_shading_that_the_inversion_lost_comes_back(keep, want):
    """aged 100 + keep^2 * (photo 150 - inversion 130), in the middle of the face."""
    shown = dial(keep=keep)
    shown = shown.shown(shown.change(grey(100), 40))
    np.testing.assert_allclose(shown[4, 4], want, atol=1)


def test_an_aligned_photograph_is_shown_up_to_its_edges(pipeline):
    """The recipe of crops blurs what lies near the edge of a photograph."""
    photo = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    (face,) = pipeline.faces(photo, align=False)
    np.testing.assert_array_equal(face.seen_in(photo, 256), photo)
    unchanged = FaceDial(photo, face, pipeline.crop, face.image)
    np.testing.assert_array_equal(unchanged.picture, photo)
    nothing = Patch(face.quad, np.zeros_like(face.image, np.float32), unchanged.mask)
    np.testing.assert_array_equal(unchanged.shown(nothing), photo)
    beyond = AlignedFace(face.image, face.quad + 3)  # what is not there goes on blurred
    assert np.abs(np.diff(beyond.seen_in(photo, 256)[-2:].astype(int), axis=1)).mean() < 40


@pytest.mark.parametrize(("keep", "want"), [(0.25, 15.16), (0.5, 17.41), (1.0, 20)])
def test_more_of_fine_structure_comes_back(keep, want):
    """A photograph of squares 20 levels above and below its mean, which the inversion lacks."""
    squares = np.indices((64, 64)).sum(axis=0) % 2
    photo = np.dstack([150 + 40 * squares - 20] * 3).astype(np.uint8)
    face = AlignedFace(photo, SQUARE * 8)
    one = FaceDial(photo, face, CropSettings(64), grey(150, 64), keep=keep)
    shown = one.shown(one.change(grey(100, 64), 40)).astype(float)
    middle = shown[28:36, 28:36, 0]
    np.testing.assert_allclose(middle[squares[28:36, 28:36] == 1].mean(), 100 + want, atol=1)
    np.testing.assert_allclose(middle[squares[28:36, 28:36] == 0].mean(), 100 - want, atol=1)


def test_a_face_that_does_not_change_is_the_photograph():
    shown = dial(keep=1.0)
    np.testing.assert_array_equal(shown.change(grey(130), 40).values, 0)


def test_outside_of_the_face_the_photograph_stays(pipeline):
    (face,) = pipeline.faces(PORTRAIT)
    mask = face_mask(face, pipeline.crop)
    assert mask[64, 64] > 0.95 and mask[-8:, :8].max() < 1e-3 and mask[-8:, -8:].max() < 1e-3
    aged, kept = (pipeline(PORTRAIT, [5], keep=keep)[0][0] for keep in (0.1, 1.0))
    np.testing.assert_array_equal(aged[-6:, :6], kept[-6:, :6])
    assert np.abs(aged.astype(int) - kept).mean() > 1


def test_smooth_colour_changes_less_than_brightness_and_blotches_least():
    red = np.array([40, 0, 0], np.float32)
    brightness = 0.299 * 40
    colour = red - brightness
    photo = grey(130, 64) + np.array([20, 0, 0], np.uint8)
    plain = FaceDial(photo, AlignedFace(photo, SQUARE * 8), CROP, photo)
    even = plain.change(photo + red, 40).values
    np.testing.assert_allclose(even[32, 32], brightness + SMOOTH_COLOUR * colour, rtol=1e-4)
    squares = (np.indices((64, 64)).sum(axis=0) % 2 * 2 - 1)[..., None]
    blotched = plain.change(photo + squares * colour, 40).values[32, 32] * squares[32, 32]
    np.testing.assert_allclose(blotched, COLOUR * colour, atol=0.1)


def test_a_grey_photograph_stays_grey():
    one = dial(photo=130, keep=1.0)
    red = np.array([40, 0, 0], np.float32)
    np.testing.assert_allclose(one.change(130 + red + np.zeros((8, 8, 3)), 40).values, 0.299 * 40)
    shown = one.shown(one.change(130 + red + np.zeros((8, 8, 3), np.float32), 40))
    assert not np.ptp(shown, axis=-1).any() and shown.max() > 135


def test_eyes_and_lips_keep_their_colours(pipeline):
    (face,) = pipeline.faces(PORTRAIT)
    features = feature_mask(face)[..., 0]
    axes = np.stack([face.quad[3] - face.quad[0], face.quad[1] - face.quad[0]], axis=1)
    points = ((face.landmarks + 0.5 - face.quad[0]) @ np.linalg.inv(axes).T * 128).astype(int)
    eye, lip, cheek = points[36:42].mean(axis=0), points[51:58:6].mean(axis=0), points[[2, 31]]
    for x, y in (eye.astype(int), lip.astype(int)):
        assert features[y, x] > 0.9
    x, y = cheek.mean(axis=0).astype(int)
    assert features[y, x] < 0.05

    one = FaceDial(PORTRAIT, face, pipeline.crop, face.image, keep=1.0)
    blue = np.array([0, 0, 20], np.float32)
    change = one.change(face.image + blue, 40).values
    scale = pipeline.output_size / 128
    x, y = (eye * scale).astype(int)
    np.testing.assert_allclose(change[y, x], FEATURES * 0.114 * 20, atol=0.8)
    x, y = (cheek.mean(axis=0) * scale).astype(int)
    assert change[y, x, 2] > 10
    assert not feature_mask(AlignedFace(face.image, face.quad)).any()


def test_older_faces_lose_their_specks_and_get_deeper_folds():
    flat = grey(130, 64)
    one = FaceDial(flat, AlignedFace(flat, SQUARE * 8), CROP, flat, own_age=40, keep=1.0)
    speck = flat.copy()
    speck[32, 32] += 60
    np.testing.assert_array_equal(one.change(speck, 60).values, 0)
    assert one.change(speck, 20).values[32, 32, 0] == 60  # where it makes younger all is taken

    fold = flat.copy()
    fold[:, 32:36] -= 40
    coarse = _smooth(fold.astype(np.float32) - 130, 8)[32, 33]
    want = coarse + FOLDS * (-40 - coarse)
    np.testing.assert_allclose(one.change(fold, 60).values[32, 33], want, atol=1e-3)
    assert (want < -42).all()
    # Not all at once, which would show in an animation.
    np.testing.assert_allclose(one.change(speck, 42.5).values[32, 32], 30, atol=1e-4)
    np.testing.assert_allclose(one.change(speck, 40.01).values[32, 32], 60, atol=0.2)
    np.testing.assert_array_equal(one.change(speck, 45).values, 0)


def seen(moves):
    """Landmarks of renderings: where they are told to be, and of dark ones farther down."""
    return lambda image, near: near + (image.mean() < 100) * np.array([0, moves * len(image)])


def test_a_photograph_moves_to_where_a_child_has_its_features(pipeline):
    (face,) = pipeline.faces(PORTRAIT)
    inversion, child = grey(150, 64), grey(80, 64)
    near = seen(-0.05)
    one = FaceDial(PORTRAIT, face, pipeline.crop, inversion, 40, 1.0, 256, landmarks_near=near)
    for age, share in [(5, 1), (15, 0.5), (19, 0.1)]:
        shift = one.change(child, age).shift
        np.testing.assert_allclose(shift[12:20, 12:20, 0], 0, atol=2e-3)
        np.testing.assert_allclose(shift[12:20, 12:20, 1], -0.05 * share, atol=5e-3 * share)
        assert np.abs(shift[[0, -1]]).max() < np.abs(shift[:, [0, -1]]).max() + 0.01 < 0.02
    assert one.change(child, 20).shift is None and one.change(child, 60).shift is None
    for own_age, points in [(3, near), (None, near), (40, None)]:
        stays = FaceDial(PORTRAIT, face, pipeline.crop, inversion, own_age, landmarks_near=points)
        assert stays.change(child, 5).shift is None

    found = one.shown(replace(one.change(child, 5), values=np.zeros((64, 64, 3), np.float32)))
    picture = one.picture.astype(float)
    higher = 0.2 * picture[112:152] + 0.8 * picture[113:153]  # 0.05 of 256 pixels are 12.8
    apart = [np.abs(found[100:140] - rows)[:, 90:170].mean() for rows in (higher, picture[100:140])]
    assert apart[0] < apart[1] / 4


def test_what_is_kept_and_the_mask_move_along(pipeline):
    """A dark square in the photograph, of which the inversion shows nothing."""
    (face,) = pipeline.faces(PORTRAIT)
    photo = grey(150, 64)
    photo[36:40, 30:34] = 50
    face = AlignedFace(photo, SQUARE * 8, _landmarks(face) * 64 - 0.5)
    one = FaceDial(
        photo, face, CropSettings(64), grey(150, 64), 40, 0.1, landmarks_near=seen(-0.125)
    )
    patch = one.change(grey(80, 64), 5)
    row, column = np.unravel_index(patch.values[..., 1].argmax(), (64, 64))
    assert abs(row - 29.5) <= 1.5 and abs(column - 31.5) <= 1.5  # an eighth of 64 higher: 8

    mouth = (face.landmarks[60:68].mean(axis=0) * 2).astype(int)  # in 128 pixels; it is left out
    column = patch.mask[:, mouth[0]]
    assert column[mouth[1] - 24 : mouth[1] + 8].argmin() + mouth[1] - 24 <= mouth[1] - 12


def test_a_rendered_child_has_its_features_higher(pipeline):
    result = pipeline(PORTRAIT, [5, 40])
    (child,), (adult,) = (pipeline.faces(resize(image, 512)) for image in result[0])
    tip = 30  # of the nose
    assert child.landmarks[tip, 1] < adult.landmarks[tip, 1] - 5
    pasted = result.paste()
    assert np.abs(pasted[0].astype(int) - PORTRAIT).max() > 30
    outside = face_outside(result.faces[0].quad)
    np.testing.assert_array_equal(pasted[0][outside], PORTRAIT[outside])


def face_outside(quad):
    """Where the portrait lies outside of the box around a square."""
    outside = np.ones(PORTRAIT.shape[:2], bool)
    left, top = np.floor(quad.min(axis=0)).astype(int)
    right, bottom = np.ceil(quad.max(axis=0)).astype(int)
    outside[max(top, 0) : bottom, max(left, 0) : right] = False
    return outside


def test_less_is_kept_of_younger_faces_and_more_of_much_older_ones():
    shares = [default_share(years) for years in (-60, -10, -5, 0, 20, 30, 60)]
    assert shares == sorted(shares) and 0 < shares[0] < shares[3] < shares[-1] < 1
    assert (shares[0], shares[-1]) == (shares[1], shares[-2])  # flat from there on
    one = dial(own_age=40)
    assert (one.share(20), one.share(80)) == (default_share(-20), default_share(40))
    assert dial().share(0) == dial().share(100) == default_share(0)  # of unknown age


def test_what_the_photograph_holds_back_is_asked_for_in_addition(pipeline, monkeypatch):
    assert dial(own_age=40).aim(60) == 65 and dial(own_age=40).aim(20) == 15
    assert dial(own_age=60).aim(10) == 0 and dial(own_age=40).aim(70) == 70
    assert dial().aim(20) == 20 and dial(own_age=40, overshoot=False).aim(60) == 60
    (face,) = pipeline.faces(PORTRAIT)
    own = pipeline.read_ages(face.image[None])[0]
    one = dial(own_age=own)
    seen = []
    age = AgePipeline.age
    monkeypatch.setattr(AgePipeline, "age", lambda self, *a: seen.append(a[1]) or age(self, *a))
    pipeline(PORTRAIT, [20, 60])
    np.testing.assert_allclose(seen[0], [[20 + (20 - own) / 4, one.aim(60)]])
    pipeline(PORTRAIT, [20, 60], keep=0)
    np.testing.assert_array_equal(seen[1], [[20, 60]])
    monkeypatch.setattr(pipeline, "calibration", None)
    pipeline(PORTRAIT, [20, 60])
    np.testing.assert_array_equal(seen[2], [[20, 60]])


def test_nothing_is_kept_as_published(pipeline):
    (face,) = pipeline.faces(PORTRAIT)
    aged = pipeline(PORTRAIT, [10, 80], keep=0)
    np.testing.assert_array_equal(aged[0], pipeline.age(face.image[None], [10, 80])[0])
    with pytest.raises(ConfigError, match="keep: expected a number from 0 to 1, found 1.5"):
        pipeline(PORTRAIT, [10], keep=1.5)


def test_results_are_as_large_as_the_face(pipeline):
    (face,) = pipeline.faces(PORTRAIT)
    side = round(float(np.hypot(*(face.quad[3] - face.quad[0]))))
    assert side >= pipeline.output_size
    assert pipeline(PORTRAIT, [40])[0].shape == (1, side, side, 3)
    size = pipeline.crop.size
    assert pipeline(PORTRAIT, [40], resize_outputs=True)[0].shape == (1, size, size, 3)
    large = Image.fromarray(PORTRAIT).resize((6144, 6144))
    assert pipeline.faces(large)[0].image.shape == (size, size, 3)
    assert pipeline(large, [40])[0].shape == (1, 1024, 1024, 3)


def detail(image):
    """Mean difference of neighbours: what blurring takes away."""
    return np.abs(np.diff(image.astype(float), axis=1)).mean()


def test_a_pasted_face_is_as_sharp_as_its_photograph(pipeline):
    large = resize(PORTRAIT, (1536, 1536))
    rng = np.random.default_rng(0)  # grain, as of a camera
    large = (large + rng.normal(0, 6, large.shape)).clip(0, 255).astype(np.uint8)
    (face,) = pipeline.faces(large)
    x, y = face.quad.mean(axis=0).astype(int)
    middle = np.s_[y - 60 : y + 60, x - 60 : x + 60]
    kept, published = (pipeline(large, [60], keep=keep).paste()[0] for keep in (None, 0))
    assert np.abs(kept[middle].astype(int) - large[middle]).mean() > 3
    assert detail(kept[middle]) > 0.9 * detail(large[middle])
    assert detail(published[middle]) < 0.5 * detail(large[middle])
    np.testing.assert_array_equal(kept[:200], large[:200])


def test_networks_that_do_not_invert_have_no_dial():
    crop = resize(PORTRAIT[60:200, 150:290], 32)
    pipeline = tiny_pipeline(start="latent_avg", pretrained=False)
    found = pipeline(crop, [30], align=False)
    np.testing.assert_array_equal(found[0], pipeline.age(crop[None], [30])[0])
    with pytest.raises(ConfigError, match="keep: network does not invert faces"):
        pipeline(crop, [30], align=False, keep=0.5)


def test_without_a_dial_results_are_resized_too():
    pipeline = tiny_pipeline(start="latent_avg", pretrained=False, output_size=64)
    crop = resize(PORTRAIT[60:200, 150:290], 32)
    for keep in (None, 0):
        resized = pipeline(crop, [30], align=False, resize_outputs=True, keep=keep)
        np.testing.assert_array_equal(resized[0], pipeline.age(crop[None], [30], True)[0])
        assert resized[0].shape == (1, 32, 32, 3)


def test_a_change_is_added_where_its_mask_is():
    photo = np.full((40, 40, 3), 100, np.uint8)
    quad = np.array([[10, 10], [10, 30], [30, 30], [30, 10]], np.float64)
    half = np.ones((4, 4), np.float32)
    half[:, 2:] = 0
    change = np.full((2, 2, 3), 50, np.float32)
    found = paste(photo, [Patch(quad, change, half)], feather=0.1)
    np.testing.assert_array_equal(found[20, 15], 150)
    np.testing.assert_array_equal(found[20, 27], 100)
    assert (found[:10] == 100).all()


# --- a model of another size -----------------------------------------------------------------


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    """A random SAM of 128 px output with twelve codes, and encoders of 64 px."""
    paddle.seed(0)
    encoder = {"input_size": 64, "style_dim": 16, "stem": 4, "widths": (16, 16, 16, 16)}
    encoder |= {"units": (1, 1, 1, 1), "squeeze_excite": False, "n_styles": 12}
    channels = dict.fromkeys((4, 8, 16, 32, 64, 128), 4)
    arch = {
        "encoder": encoder | {"in_channels": 4},
        "decoder": {"size": 128, "style_dim": 16, "mapping_layers": 1, "channels": channels},
        "pretrained_encoder": encoder | {"in_channels": 3},
        "start": "encoded_w_plus",
    }
    network = build_sam(**arch)
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    path = tmp_path_factory.mktemp("larger") / "sam_128.pdparams"
    # The crop's size that the file states is not the encoder's: the encoder knows better.
    alignment = {"size": 256, "scale": 0.7}
    WeightFile("sam", {"sam": NetworkEntry("sam", arch, state)}, alignment=alignment).write(path)
    return path


def test_the_crop_is_as_large_as_the_encoders_input(larger):
    pipeline = AgePipeline.from_checkpoint(larger, engine="eager")
    assert (pipeline.crop.size, pipeline.crop.scale) == (64, 0.7)
    assert (pipeline.n_codes, pipeline.output_size) == (12, 128)


@pytest.mark.parametrize("keep", ["auto", "0"])
def test_every_command_takes_it(larger, tmp_path, keep):
    common = ["--checkpoint_path", str(larger), "--engine", "eager"]
    ages = ["--keep", keep, "--target_age", "20,60"]
    out = ["--exp_dir", str(tmp_path)]
    assert side_by_side([*common, *ages, *out, "--paste_back"]) == 0
    assert inference([*common, *ages, *out]) == 0
    assert animate([*common, *ages, *out, "--fps", "10", "--duration", "0.3"]) == 0
    assert style_mixing([*common, *ages, *out, "--n_outputs_to_generate", "2"]) == 0
    assert edit([*common, "--keep", keep, *out, "--explore", "sefa0"]) == 0
    assert project([*common[:2], *out, "--step", "1", "--lpips", "alex"]) == 0
    latent = tmp_path / "projection" / "astronaut.npz"
    with np.load(latent) as arrays:
        assert arrays["w_plus"].shape == (12, 16) and arrays["crop"].shape == (64, 64, 3)
    assert (
        inference([*common, *ages, "--exp_dir", str(tmp_path / "b"), "--latent", str(latent)]) == 0
    )
    side = Image.open(tmp_path / "inference_results" / "20" / "astronaut.png").size
    assert side == (128, 128)  # at least the model's own


def test_the_demo_and_the_evaluation_take_it(larger, tmp_path):
    pipeline = AgePipeline.from_checkpoint(larger, engine="eager")
    demo = Demo({"larger": lambda: Model(pipeline, Measures(pipeline.crop))}, Sessions())
    client = make_app(demo, max_upload_mb=1.0).test_client()
    session = f"/session/{client.post('/example').json['session']}"
    for query, side in (("?keep=0", 128), ("", 128)):  # the face in the portrait is smaller
        picture = client.get(f"{session}/0/age/37.png{query}")
        assert Image.open(io.BytesIO(picture.data)).size == (side, side)
    demo.close()

    lpips = {name: np.abs(value.numpy()) for name, value in LPIPS("alex").state_dict().items()}
    np.savez(tmp_path / "lpips.npz", **lpips)
    Image.fromarray(PORTRAIT).save(tmp_path / "a.png")
    arguments = ["--checkpoint_path", str(larger), "--data_path", str(tmp_path / "a.png")]
    arguments += ["--engine", "eager", "--lpips_path", str(tmp_path / "lpips.npz")]
    arguments += ["--exp_dir", str(tmp_path / "out"), "--target_age", "20,60"]
    arguments += ["--age_regressor_path", str(find_weight("age_mini"))]
    assert evaluate(["ageing", *arguments]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert len(report["faces"]) == 1


def test_inverting_references_and_every_evaluation_take_it(larger, tmp_path):
    photo, references = tmp_path / "a.png", tmp_path / "references.txt"
    Image.fromarray(PORTRAIT).save(photo)
    references.write_text(f"{photo}\n", encoding="utf-8")
    model = ["--checkpoint_path", str(larger)]
    out = ["--data_path", str(photo), "--exp_dir", str(tmp_path / "out")]
    mixed = [*model, *out, "--engine", "eager", "--target_age", "20"]
    assert reference_guided([*mixed, "--ref_images_paths_file", str(references)]) == 0
    assert invert([*model, *out]) == 0
    lpips = {name: np.abs(value.numpy()) for name, value in LPIPS("alex").state_dict().items()}
    np.savez(tmp_path / "lpips.npz", **lpips)
    measured = [*model, "--data_path", str(photo), "--lpips_path", str(tmp_path / "lpips.npz")]
    assert evaluate(["reconstruction", *measured, "--exp_dir", str(tmp_path / "r")]) == 0
    measured += ["--exp_dir", str(tmp_path / "b"), "--engine", "eager"]
    assert evaluate(["benchmark", *measured]) == 0
    report = json.loads((tmp_path / "b" / "benchmark.json").read_text(encoding="utf-8"))
    assert report["results"] >= 5


def test_exported_it_is_the_same(larger, tmp_path, monkeypatch):
    monkeypatch.setenv("PADDLE_SAM_CACHE", str(tmp_path))
    ages = {"ages": [20, 60], "keep": 0.5}
    want, found = (
        AgePipeline.from_checkpoint(larger, engine=engine)(PORTRAIT, **ages)[0]
        for engine in ("eager", "auto")
    )
    assert np.abs(want.astype(int) - found).max() <= 1


def test_the_model_is_asked_for_what_looks_the_age(larger):
    pipeline = AgePipeline.from_checkpoint(larger, engine="eager")
    pipeline.calibration = Calibration((0.0, 100.0), (20.0, 60.0), "x")
    crop = resize(PORTRAIT[60:200, 150:290], 64)
    found = pipeline.age(crop[None], [30, 40, 90])
    pipeline.calibration = None
    want = pipeline.age(crop[None], [25, 50, 100])
    np.testing.assert_array_equal(found, want)
