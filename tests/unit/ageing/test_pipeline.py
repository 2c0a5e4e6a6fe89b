"""AgePipeline: N faces in, N faces at every age out. Most of it on a tiny network."""

import inspect
import io
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import paddle
import pytest
import skimage.data
from PIL import Image

import paddle_sam
from paddle_sam.ageing import measures
from paddle_sam.ageing.measures import embedded_age_regressor, embedded_ages, measure_ages
from paddle_sam.ageing.options import list_ages
from paddle_sam.ageing.pipeline import AgePipeline
from paddle_sam.core.images import resize, to_network, to_uint8
from paddle_sam.core.weights import find_weight
from paddle_sam.errors import CheckpointError, ConfigError, FaceNotFoundError, ImageError
from paddle_sam.faces.alignment import CropSettings, align_faces
from paddle_sam.faces.landmarks import FaceLandmarker
from paddle_sam.faces.paste import paste_back
from paddle_sam.networks.sam import add_age_plane
from paddle_sam.networks.stylegan2 import Generator
from tests import DEVICE
from tests.unit.ageing.tiny import SIZE, tiny_pipeline, tiny_sam

PHOTO = skimage.data.astronaut()


@pytest.fixture(scope="module")
def embedded():
    return AgePipeline.from_checkpoint(device=DEVICE)


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline()


@pytest.fixture(scope="module")
def crop():
    return resize(PHOTO[60:200, 150:290], SIZE)


@pytest.fixture
def counted(pipeline):
    """Batch sizes of every pass through the frozen encoder."""
    sizes = []
    hook = pipeline.network.pretrained_encoder.register_forward_pre_hook(
        lambda _, given: sizes.append(given[0].shape[0])
    )
    yield sizes
    hook.remove()


def several(crop, n):
    """n different crops."""
    return np.stack([np.roll(crop, 5 * index, axis=1) for index in range(n)])


# --- results ---------------------------------------------------------------------------------


def test_faces_and_ages_of_the_result(pipeline, crop):
    found = np.asarray(pipeline(list(several(crop, 3)), ages=[20, 70], align=False))
    assert found.shape == (3, 2, SIZE, SIZE, 3) and found.dtype == np.uint8
    assert len({image.tobytes() for image in found.reshape(6, -1)}) == 6
    single = pipeline(crop, ages=[70], align=False)
    np.testing.assert_allclose(single[0][0], found[0, 1].astype(int), atol=1)


def test_result_is_encode_and_decode_written_out(pipeline, crop):
    network = pipeline.network
    x = add_age_plane(paddle.to_tensor(to_network(crop)), paddle.to_tensor([35.0]))
    with paddle.no_grad():
        images = network(x, resize=False, randomize_noise=False)
    expected = to_uint8(images.numpy())
    np.testing.assert_array_equal(pipeline.age(crop[None], [35])[0], expected)


def test_the_eleven_ages_are_the_default(pipeline, crop):
    (found,) = pipeline(crop, align=False)
    assert len(found) == 11
    np.testing.assert_allclose(
        found[[0, 10]], pipeline(crop, [0, 100], align=False)[0].astype(int), atol=1
    )


@pytest.mark.parametrize("batch_size", [1, 2, 3, 50])
def test_batching_changes_nothing_but_rounding(pipeline, crop, batch_size):
    crops = several(crop, 3)
    expected = np.stack(
        [[pipeline.age(one[None], [age])[0, 0] for age in (0, 45, 100)] for one in crops]
    )
    found = pipeline.age(crops, [0, 45, 100], batch_size=batch_size)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_the_frozen_code_is_computed_once_per_face(pipeline, crop, counted):
    pipeline.age(several(crop, 5), range(0, 101, 10), batch_size=2)
    assert sum(counted) == 5
    assert counted == [2, 2, 1]


def test_results_repeat(pipeline, crop):
    np.testing.assert_array_equal(pipeline.age(crop[None], [50]), pipeline.age(crop[None], [50]))


def test_measured_ages_rise_with_the_target(embedded):
    images = embedded(PHOTO, ages=[10, 40, 70], keep=0)[0]
    ages = measure_ages(embedded_age_regressor(DEVICE), images)
    size = embedded.output_size
    assert images.shape == (3, size, size, 3) and ages.shape == (3,)
    assert ages[0] + 5 < ages[1] < ages[2] - 5


def test_outputs_are_pooled_on_request(crop):
    pipeline = tiny_pipeline(output_size=64)
    assert pipeline.output_size == 64
    whole = pipeline.age(crop[None], [10])
    pooled = pipeline.age(crop[None], [10], resize_outputs=True)
    assert (whole.shape, pooled.shape) == ((1, 1, 64, 64, 3), (1, 1, 32, 32, 3))
    # Where nothing is clamped, that is the mean of four pixels.
    means = whole.reshape(32, 2, 32, 2, 3).astype(float)
    inside = (means > 1).all(axis=(1, 3)) & (means < 254).all(axis=(1, 3))
    assert inside.mean() > 0.3
    assert np.abs(means.mean(axis=(1, 3)) - pooled[0, 0])[inside].max() < 1.1


# --- inputs ----------------------------------------------------------------------------------


def test_a_path_and_its_pixels_give_the_same(pipeline, tmp_path):
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    from_pixels = pipeline(PHOTO, [30])
    for path in (tmp_path / "photo.png", str(tmp_path / "photo.png")):
        np.testing.assert_array_equal(pipeline(path, [30]), from_pixels)
    both = pipeline([PHOTO, tmp_path / "photo.png"], [30])
    np.testing.assert_array_equal(both[0], both[1])


def test_an_array_of_images_is_several(pipeline, crop):
    crops = several(crop, 2)
    np.testing.assert_array_equal(
        pipeline(crops, [30], align=False), pipeline(list(crops), [30], align=False)
    )


@pytest.mark.parametrize(
    "convert",
    [
        lambda pixels: Image.fromarray(pixels),
        lambda pixels: file_of(pixels).getvalue(),
        lambda pixels: file_of(pixels),
        lambda pixels: pixels / 255,
        lambda pixels: pixels.astype(np.uint16) * 257,
        lambda pixels: np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)]),
        lambda pixels: paddle.to_tensor(pixels),
        lambda pixels: pixels[:, ::-1][:, ::-1],
    ],
    ids=["PIL", "bytes", "stream", "float", "uint16", "RGBA", "tensor", "view"],
)
def test_whatever_holds_a_photograph_is_taken(pipeline, crop, convert):
    want = pipeline(crop, 30, align=False)
    for photos in (convert(crop), [convert(crop)]):
        np.testing.assert_array_equal(pipeline(photos, "30", align=False), want)


def test_grey_photographs_are_taken(pipeline, crop):
    grey = crop[..., 0]
    want = pipeline(np.dstack([grey] * 3), [30], align=False)
    for photo in (grey, grey[..., None], Image.fromarray(grey)):
        np.testing.assert_array_equal(pipeline(photo, [30], align=False), want)


def file_of(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream


def test_strips_and_pasted_photographs(pipeline):
    aged = pipeline([PHOTO[:300], PHOTO], [10, 80], keep=0)
    assert aged.strip(1).shape == (128 + 128 // 6, 3 * 128, 3)
    assert aged.strip(size=64, captions=False).shape == (64, 3 * 64, 3)
    pasted = aged.paste(1)
    assert pasted.shape == (2, *PHOTO.shape)
    want = paste_back(PHOTO, [aged[1][1]], [aged.faces[1].quad])
    np.testing.assert_array_equal(pasted[1], want)


def test_thousands_are_aged_one_by_one(pipeline, crop):
    """A photograph is asked for when its turn has come, and one that fails does not stop others."""
    taken, failures = [], []

    def photos():
        for number, photo in enumerate((crop, b"no image", crop)):
            taken.append(number)
            yield photo

    results = pipeline.iterate(photos(), 30, lambda *failure: failures.append(failure), align=False)
    np.testing.assert_array_equal(next(results), pipeline(crop, 30, align=False))
    assert taken == [0]
    assert len(list(results)) == 1 and taken == [0, 1, 2]
    ((photo, error),) = failures
    assert photo == b"no image" and "photos[1]" in str(error)
    with pytest.raises(ImageError, match=r"photos\[0\]"):
        next(pipeline.iterate([b"no image"], 30))


def test_faces_are_aligned_with_the_crop_of_the_model(embedded):
    settings = embedded.crop
    assert (settings.size, settings.scale, settings.offset) == (64, 0.6, 0.5)
    (found,) = embedded.faces(PHOTO)
    (expected,) = align_faces(PHOTO, FaceLandmarker().find, settings)
    np.testing.assert_array_equal(found.image, expected.image)


def test_aligned_input_is_only_resized(pipeline):
    (face,) = pipeline.faces(PHOTO, align=False)
    np.testing.assert_array_equal(face.image, resize(PHOTO, SIZE))
    np.testing.assert_array_equal(face.quad, [[0, 0], [0, 512], [512, 512], [512, 0]])


def test_one_face_or_all(pipeline):
    faint = PHOTO // 2 + 60
    pair = np.hstack([PHOTO[:400, 60:400], faint[:400, 60:400]])
    assert len(pipeline(pair, [30])) == 1
    faces = pipeline.faces(pair, face="all")
    assert len(faces) == 2
    assert abs(faces[0].quad[:, 0].mean() - faces[1].quad[:, 0].mean()) > 200
    found = pipeline([pair, PHOTO], [30, 60], face="all")
    assert [len(images) for images in found] == [2, 2, 2] and found.photo_of_face == [0, 0, 1]


def test_the_landmarker_is_loaded_when_a_face_is_looked_for(crop, monkeypatch):
    def missing(name):
        raise CheckpointError(f"{name} is missing")

    monkeypatch.setattr("paddle_sam.faces.landmarks.find_weight", missing)
    fresh = tiny_pipeline()
    assert fresh(crop, [30], align=False)[0].shape == (1, SIZE, SIZE, 3)
    with pytest.raises(CheckpointError, match="landmarks is missing"):
        fresh(PHOTO, [30])


# --- networks --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "pretrained"), [("zero", False), ("latent_avg", False), ("encoded_w_plus", True)]
)
def test_networks_of_every_start_age(start, pretrained):
    """Training without the frozen encoder gives a SAM network too."""
    network = tiny_sam(start, pretrained)
    pixels = several(resize(PHOTO[60:200, 150:290], SIZE), 2)
    found = AgePipeline(network, CropSettings(SIZE)).age(pixels, [10, 90], batch_size=3)
    assert found.shape == (2, 2, SIZE, SIZE, 3)
    x = add_age_plane(paddle.to_tensor(to_network(pixels)), paddle.to_tensor([90.0, 90.0]))
    with paddle.no_grad():
        expected = to_uint8(network(x, randomize_noise=False).numpy())
    assert np.abs(found[:, 1].astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    "network",
    [lambda: tiny_sam("latent_avg", False, 3), lambda: Generator(8, 4, 1, {4: 2, 8: 2})],
    ids=["psp", "generator"],
)
def test_other_networks_are_refused(network):
    with pytest.raises(CheckpointError, match="^x.pt: holds a .* cannot age a face; expected a SA"):
        AgePipeline(network(), CropSettings(), "x.pt")


def test_a_file_of_another_network_is_refused():
    with pytest.raises(CheckpointError, match=r"holds an age regressor"):
        AgePipeline.from_checkpoint(find_weight("age_mini"), DEVICE)


def test_the_package_names_it():
    assert paddle_sam.AgePipeline is AgePipeline
    with pytest.raises(AttributeError, match="has no attribute 'Pipeline'"):
        paddle_sam.Pipeline  # noqa: B018
    assert "photos" in inspect.signature(AgePipeline.__call__).parameters


# --- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ages", "found"),
    [([], "found none"), ([-1], "found -1"), ([20, 100.5], "found 100.5"), ([np.nan], "found nan")],
)
def test_ages_are_checked(pipeline, crop, ages, found):
    with pytest.raises(ConfigError, match=f"ages: expected .*{found}"):
        pipeline(crop, ages, align=False)
    assert list_ages(iter([0, 100])) == [0, 100]
    assert list_ages(np.float32(7)) == [7] and list_ages("20-24:2") == [20, 22, 24]


@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize(
    ("image", "words"),
    [
        ([], "photos: expected at least one photograph, found none"),
        (np.dstack([PHOTO, PHOTO]), r"photo: .* found \[512, 512, 6\]"),
        ([PHOTO, np.dstack([PHOTO, PHOTO])], r"photos\[1\]: .* found \[512, 512, 6\]"),
        (PHOTO / 2, "photo: expected floating point values from 0 to 1, found 0 to 127.5"),
        (PHOTO.astype(int), "photo: expected uint8, uint16 or floating point, found int64"),
        (7, "photo: expected a path, bytes, PIL image or an array .* found int64"),
    ],
)
def test_arrays_that_are_no_images(pipeline, image, words, align):
    with pytest.raises(ConfigError, match=words):
        pipeline(image, [30], align=align)


def test_crops_of_another_size_and_batches_of_none(pipeline, crop):
    with pytest.raises(ConfigError, match=r"crops: expected shape \[\*, 32, 32, 3\], found"):
        pipeline.age(PHOTO[None], [30])
    with pytest.raises(ConfigError, match="batch_size: expected at least 1, found 0"):
        pipeline.age(crop[None], [30], batch_size=0)


def test_files_that_cannot_be_used_are_named(pipeline, tmp_path):
    Image.fromarray(np.full((90, 90, 3), 128, np.uint8)).save(tmp_path / "grey.png")
    with pytest.raises(FaceNotFoundError, match=r"grey\.png: found no face in 90 x 90 pixels"):
        pipeline(tmp_path / "grey.png", [30])
    with pytest.raises(ImageError, match=r"none\.png: there is no such file"):
        pipeline([PHOTO, tmp_path / "none.png"], [30])
    with pytest.raises(ConfigError, match="face: expected one of best, largest, all, found"):
        pipeline(PHOTO, [30], face="second")


def test_damaged_weights_are_noticed(crop):
    pipeline = tiny_pipeline()
    pipeline.network.latent_avg.set_value(np.full((8, 16), np.nan, np.float32))
    with pytest.raises(ImageError, match="values that are not numbers; its weights are damaged"):
        pipeline.age(crop[None], [10])


def test_the_embedded_file_by_its_name_reads_ages_too(tmp_path):
    """So that naming it, or a link to it, changes no result."""
    link = tmp_path / "named.pdparams"
    link.symlink_to(find_weight("sam_mini"))
    assert AgePipeline.from_checkpoint(link, DEVICE, "eager").read_ages is not None
    copy = tmp_path / "copy.pdparams"
    copy.write_bytes(find_weight("sam_mini").read_bytes())
    assert AgePipeline.from_checkpoint(copy, DEVICE, "eager").read_ages is None


def test_threads_load_what_reads_ages_once(monkeypatch):
    loads, load = [], embedded_age_regressor

    def slow(device):
        loads.append(device)
        time.sleep(0.05)
        return load(device)

    monkeypatch.setattr(measures, "embedded_age_regressor", slow)
    read = embedded_ages(DEVICE)
    assert not loads
    crop = resize(PHOTO[60:200, 150:290], 64)[None]
    with ThreadPoolExecutor(4) as pool:
        ages = list(pool.map(read, [crop] * 4))
    assert loads == [DEVICE] and all(age == ages[0] for age in ages)
