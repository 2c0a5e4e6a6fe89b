"""TensorFlow's record files, written here by Google's Protocol Buffers and a CRC of their own."""

import struct

import numpy as np
import pytest
from PIL import Image

from paddle_sam.imagesets.archive import open_image_set, read_source
from paddle_sam.imagesets.prepare.tfrecords import _checksum, _records, find_records
from scripts.prepare_dataset import main
from tests import DEVICE

pytest.importorskip("google.protobuf")


@pytest.fixture(scope="module")
def example():
    """The message `tf.train.Example`."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="t", syntax="proto3")

    def message(name, *fields, inside=file.message_type):
        made = inside.add(name=name)
        for number, (called, kind, label, of) in enumerate(fields, 1):
            made.field.add(name=called, number=number, type=kind, label=label, type_name=of)
        return made

    many, one = field.LABEL_REPEATED, field.LABEL_OPTIONAL
    message("Texts", ("value", field.TYPE_BYTES, many, None))
    message("Floats", ("value", field.TYPE_FLOAT, many, None))
    message("Numbers", ("value", field.TYPE_INT64, many, None))
    kinds = (("bytes_list", "Texts"), ("float_list", "Floats"), ("int64_list", "Numbers"))
    message("Feature", *((name, field.TYPE_MESSAGE, one, f".t.{of}") for name, of in kinds))
    features = message("Features", ("feature", field.TYPE_MESSAGE, many, ".t.Features.Entry"))
    entry = message(
        "Entry",
        ("key", field.TYPE_STRING, one, None),
        ("value", field.TYPE_MESSAGE, one, ".t.Feature"),
        inside=features.nested_type,
    )
    entry.options.map_entry = True
    message("Example", ("features", field.TYPE_MESSAGE, one, ".t.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Example"))


def write(path, example, records):
    """Write records, each a dictionary of bytes or lists of numbers."""
    content = b""
    for record in records:
        message = example()
        for name, value in record.items():
            feature = message.features.feature[name]
            if isinstance(value, bytes):
                feature.bytes_list.value.append(value)
            else:
                feature.int64_list.value.extend(value)
        data = message.SerializeToString()
        length = struct.pack("<Q", len(data))
        content += length + struct.pack("<I", _checksum(length)) + data
        content += struct.pack("<I", _checksum(data))
    path.write_bytes(content)


def raw(image):
    """A record as `dataset_tool.py` writes it, of an image [H, W, C]."""
    return {
        "shape": list(image.transpose(2, 0, 1).shape),
        "data": image.transpose(2, 0, 1).tobytes(),
    }


def prepare(data, output, *more):
    words = ["--data_path", str(data), "--output", str(output), "--size", "16", *more]
    words += ["--min_contrast", "0", "--min_colour", "0", "--duplicate_bits", "-1"]
    return main([*words, "--num_threads", "1"])


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)


def test_the_checksum_is_the_standard_one():
    """CRC-32C of `123456789` is the published check value 0xE3069283; masked as TensorFlow does."""
    crc = 0xE3069283
    assert _checksum(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def test_files_of_tensorboards_writer_are_records(tmp_path):
    writer = pytest.importorskip("tensorboard.summary.writer.record_writer")
    path = tmp_path / "without_an_ending"
    with path.open("wb") as stream:
        records = writer.RecordWriter(stream)
        for content in (b"", b"one", bytes(300)):
            records.write(content)
    assert find_records(path) == [path]
    assert list(_records(path)) == [b"", b"one", bytes(300)]
    path.write_bytes(b"1" + path.read_bytes()[1:])
    assert find_records(path) == []


def test_a_data_set_of_stylegan_is_prepared_with_its_classes(example, images, tmp_path):
    """Of a folder with every resolution the largest, pixel for pixel."""
    folder = tmp_path / "faces"
    folder.mkdir()
    write(folder / "faces-r04.tfrecords", example, map(raw, images))
    write(folder / "faces-r03.tfrecords", example, map(raw, images[:, ::2, ::2]))
    with (folder / "faces-rxx.labels").open("wb") as stream:
        np.save(stream, np.eye(2, dtype=np.float32)[[1, 0, 1]])
    assert prepare(folder, tmp_path / "set.zip", "--labels", "inputs") == 0
    made = open_image_set(tmp_path / "set.zip")
    assert made.labels == (1, 0, 1)
    np.testing.assert_array_equal([read_source(one) for one in made.images], images)
    assert not (tmp_path / "set_work").exists()


def test_grey_and_encoded_pictures(example, images, tmp_path):
    png, jpg = tmp_path / "a.png", tmp_path / "a.jpg"
    Image.fromarray(images[0]).save(png)
    Image.fromarray(images[1]).save(jpg)
    records = [{"image/encoded": one.read_bytes(), "label": [300, 2]} for one in (png, jpg)]
    write(tmp_path / "train-00000-of-00001", example, [*records, raw(images[2][..., :1])])
    assert prepare(tmp_path / "train-00000-of-00001", tmp_path / "set.zip") == 0
    found = [read_source(one) for one in open_image_set(tmp_path / "set.zip").images]
    assert len(found) == 3
    np.testing.assert_array_equal(found[0], images[0])
    np.testing.assert_array_equal(found[2], images[2][..., :1].repeat(3, axis=2))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: data[:-9], "damaged or truncated"),
        (lambda data: data + b"more", "damaged or truncated"),
        (lambda data: data[:12] + b"\xff" * 20 + data[32:], "record 0 holds no image"),
    ],
)
def test_a_damaged_file_is_named(spoil, words, example, images, tmp_path, capsys):
    path = tmp_path / "a.tfrecords"
    write(path, example, map(raw, images))
    path.write_bytes(spoil(path.read_bytes()))
    assert prepare(path, tmp_path / "set.zip") == 2
    error = capsys.readouterr().err
    assert f"{path}: " in error
    assert words in error


def test_a_record_without_a_picture_and_labels_that_are_none(example, images, tmp_path, capsys):
    path = tmp_path / "a-r04.tfrecords"
    write(path, example, [{"text": b"hello"}])
    assert prepare(path, tmp_path / "set.zip") == 2
    assert "record 0 holds no image (its features are text)" in capsys.readouterr().err
    write(path, example, map(raw, images))
    with (tmp_path / "a-rxx.labels").open("wb") as stream:
        np.save(stream, np.full((3, 2), 0.5))
    assert prepare(path, tmp_path / "set.zip", "--labels", "inputs") == 2
    assert "a-rxx.labels: expected a table of zeros" in capsys.readouterr().err


def test_training_says_what_to_do_with_records(example, images, tmp_path, capsys):
    from scripts import train_stylegan2

    write(tmp_path / "a-r04.tfrecords", example, map(raw, images))
    for data in (tmp_path, tmp_path / "a-r04.tfrecords"):
        words = ["--train_data", str(data), "--exp_dir", str(tmp_path / "run"), "--device", DEVICE]
        assert train_stylegan2.main(words) == 2
        assert f"scripts/prepare_dataset.py --data_path {data}" in capsys.readouterr().err
