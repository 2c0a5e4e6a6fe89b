import itertools
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from paddle_sam.core.images import read_image, save_image
from paddle_sam.errors import ConfigError, ImageError
from paddle_sam.imagesets.archive import write_archive
from paddle_sam.stargan2.domains import (
    CROP_AREA,
    CROP_RATIO,
    DomainLoader,
    Domains,
    crop_box,
    draw,
    read_all,
    read_augmented,
    read_domains,
)

EVERYTHING = slice(None)


@pytest.fixture
def root(tmp_path):
    """Domains of 1, 2 and 6 images, whose grey level is 20 x domain + image."""
    for domain, count in enumerate((1, 2, 6)):
        for index in range(count):
            image = np.full((16, 12, 3), 20 * domain + index, np.uint8)
            save_image(tmp_path / "data" / f"d{domain}" / f"{index}.png", image)
    (tmp_path / "data" / ".hidden").mkdir()
    (tmp_path / "data" / "__MACOSX").mkdir()
    (tmp_path / "data" / "@eaDir").mkdir()
    (tmp_path / "data" / "@eaDir" / "thumbnail.jpg").write_bytes(b"")
    return tmp_path / "data"


def levels(images):
    """The level of each image's first pixel."""
    assert images.dtype == np.uint8
    return images[:, 0, 0, 0].astype(int)


def test_domains_are_numbered_by_name(root):
    domains = Domains(root)
    assert domains.names == ("d0", "d1", "d2")
    assert [len(files) for files in domains.files] == [1, 2, 6]


def test_every_domain_is_as_frequent_and_every_image_in_it(root):
    domains = Domains(root)
    draws = [draw(domains, 0, position) for position in range(6000)]
    for which in ("source", "reference"):
        counts = Counter(getattr(one, which).domain for one in draws)
        assert all(abs(count - 2000) < 150 for count in counts.values()), counts
    pairs = Counter((one.source.domain, one.reference.domain) for one in draws)
    assert all(abs(pairs[pair] - 667) < 110 for pair in itertools.product(range(3), repeat=2))
    images = Counter(one.source.index for one in draws if one.source.domain == 2)
    assert all(abs(images[index] - 333) < 80 for index in range(6))
    differ = sum(one.reference.index != one.other_reference.index for one in draws)
    assert differ > 1500  # the two references are drawn apart


def test_a_batch_has_references_of_its_target_domain(root):
    loader = DomainLoader(Domains(root), 16)
    batch = next(loader.training(64, 0, 0, EVERYTHING))
    assert batch.source.shape == (64, 16, 16, 3)
    assert batch.source.dtype == np.uint8 and batch.source.flags.c_contiguous
    np.testing.assert_array_equal(levels(batch.source) // 20, batch.source_domain)
    for reference in (batch.reference, batch.other_reference):
        np.testing.assert_array_equal(levels(reference) // 20, batch.target_domain)
    assert set(batch.target_domain) == {0, 1, 2}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_run_sees_what_an_unbroken_one_does(root, workers):
    def batches(start, count, workers=0, part=EVERYTHING):
        loader = DomainLoader(Domains(root), 16, workers=workers)
        return list(itertools.islice(loader.training(4, 5, start, part), count))

    straight = batches(0, 4)
    resumed = batches(2, 2, workers)
    for one, other in zip(straight[2:], resumed, strict=True):
        for name in ("source", "source_domain", "reference", "other_reference", "target_domain"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    share = batches(0, 1, part=slice(2, 4))[0]
    np.testing.assert_array_equal(share.reference, straight[0].reference[2:])
    assert not np.array_equal(straight[0].source, straight[1].source)


def test_crops_keep_to_their_area_and_ratio():
    rng = np.random.default_rng(0)
    boxes = np.array([crop_box(200, 180, rng) for _ in range(2000)])
    top, left, height, width = boxes.T
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + height <= 200).all() and (left + width <= 180).all()
    area, ratio = height * width / (200 * 180), width / height
    assert area.min() > CROP_AREA[0] - 0.01 and area.max() <= CROP_AREA[1]
    # What fits in the image is not cropped to the whole of it: the middle of the range occurs.
    assert ((area > 0.85) & (area < 0.9)).sum() > 200
    assert ratio.min() > CROP_RATIO[0] - 0.01 and ratio.max() < CROP_RATIO[1] + 0.01
    assert crop_box(1000, 10, rng) == (0, 0, 1000, 10)  # nothing of that ratio fits


def test_augmentation_is_cropping_and_mirroring_as_often_as_asked(tmp_path):
    ramp = np.arange(40, dtype=np.uint8)[None, :, None].repeat(40, 0).repeat(3, 2)
    save_image(tmp_path / "ramp.png", ramp)
    path = tmp_path / "ramp.png"
    plain = [read_augmented(path, 40, 0.0, (0, i))[0] for i in range(200)]
    mirrored = sum(np.array_equal(image, ramp[:, ::-1]) for image in plain)
    assert sum(np.array_equal(image, ramp) for image in plain) == 200 - mirrored
    assert 70 < mirrored < 130
    half = [read_augmented(path, 40, 0.5, (1, i))[0] for i in range(200)]
    kept = sum(np.array_equal(np.sort(image[0, :, 0]), ramp[0, :, 0]) for image in half)
    assert 70 < kept < 130


def test_pictures_that_are_not_square_are_squeezed_and_that_is_said_once(root):
    said = []
    loader = DomainLoader(Domains(root), 16, crop_probability=0.5, report=said.append)
    for _ in itertools.islice(loader.training(16, 0, 0, EVERYTHING), 3):
        pass
    (message,) = said
    assert "12 x 16 pixels" in message and "squeezed" in message


def test_unreadable_images_are_replaced_and_reported_once(root):
    bad = root / "d2" / "3.png"
    bad.write_bytes(b"no image")
    said = []
    loader = DomainLoader(Domains(root), 16, max_bad=1, report=said.append)
    seen = set()
    for batch in itertools.islice(loader.training(16, 0, 0, EVERYTHING), 10):
        np.testing.assert_array_equal(levels(batch.source) // 20, batch.source_domain)
        seen |= set(levels(batch.source))
    assert {0, 20, 21, 40, 41, 42, 44, 45} == seen
    unreadable = [message for message in said if message.startswith("skipped")]
    assert len(unreadable) == 1 and str(bad) in unreadable[0]
    strict = DomainLoader(Domains(root), 16, report=said.append)
    with pytest.raises(ImageError, match="max_bad_images"):
        list(itertools.islice(strict.training(16, 0, 0, EVERYTHING), 10))


def test_a_domain_without_a_readable_image_stops_the_run(root):
    (root / "d0" / "0.png").write_bytes(b"no image")
    loader = DomainLoader(Domains(root), 16, max_bad=100, report=lambda line: None)
    with pytest.raises(ImageError, match="cannot be read"):
        list(itertools.islice(loader.training(16, 0, 0, EVERYTHING), 10))


def test_read_all_keeps_order(root):
    files = Domains(root).files[2]
    assert levels(read_all(files, 16)).tolist() == [40, 41, 42, 43, 44, 45]
    assert read_image(files[0]).shape == (16, 12, 3)


def test_archives_are_domains_like_folders(root, tmp_path):
    names = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.png"))]
    labels = [[name, int(name[1])] for name in names]

    def pack(path, chosen, **description):
        pictures = [(name, (root / name).read_bytes()) for name in chosen]
        write_archive(path, pictures, {"labels": None, **description})

    whole, apart = tmp_path / "whole.zip", tmp_path / "apart"
    pack(whole, names, labels=labels, classes=[f"photos/d{domain}" for domain in range(3)])
    for domain in range(3):
        pack(apart / f"d{domain}.zip", [name for name in names if name.startswith(f"d{domain}")])
    folders = Domains(root)
    expected = next(DomainLoader(folders, 16).training(8, 3, 0, EVERYTHING))
    for place in (whole, apart):
        domains = Domains(place)
        domains.expect_names_of(folders)
        found = next(DomainLoader(domains, 16).training(8, 3, 0, EVERYTHING))
        np.testing.assert_array_equal(found.source, expected.source)
        np.testing.assert_array_equal(found.target_domain, expected.target_domain)

    pack(whole, names, labels=labels)
    assert Domains(whole).names == ("0", "1", "2")
    pack(whole, names, labels=labels, classes=["a/x", "b/x", "y"])
    with pytest.raises(ConfigError, match=r"two classes of one name: \['x', 'x', 'y'\]"):
        Domains(whole)
    pack(whole, names)
    with pytest.raises(ConfigError, match=r"states no classes of its images; .* labels folders"):
        Domains(whole)
    shutil.copytree(root / "d1", apart / "d1")
    with pytest.raises(ConfigError, match="two domains called d1"):
        Domains(apart)


def test_domains_are_read_with_their_numbers(root):
    images, domains = read_domains(Domains(root), 16, limit=2)
    assert levels(images).tolist() == [0, 20, 21, 40, 41]
    assert domains.tolist() == [0, 1, 1, 2, 2]
    assert len(read_domains(Domains(root), 16)[0]) == 9


def test_errors_name_the_option(tmp_path, root):
    with pytest.raises(ConfigError, match="train_img_dir: .* has no folders in it"):
        Domains(tmp_path / "nothing", "train_img_dir")
    with pytest.raises(ConfigError, match=r"val_dir: .* has 3 domains \(d0, d1, d2\), expected 2"):
        Domains(root, "val_dir").expect(2)
    (Path(root) / "empty").mkdir()
    with pytest.raises(ImageError, match="found no image in this folder"):
        Domains(root)
