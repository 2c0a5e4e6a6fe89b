"""Lists, tables and JSON as Windows, spreadsheets and people write them."""

import pytest

from paddle_sam.core import files
from paddle_sam.core.files import read_json, read_paths, read_table, read_text
from paddle_sam.errors import ConfigError

ROWS = [{"image": "a.png", "age": "20"}, {"image": "b,c.png", "age": ""}]


@pytest.mark.parametrize(
    "text",
    [
        'image,age\na.png,20\n"b,c.png",\n',
        '\ufeffImage, Age\r\na.png, 20\r\n"b,c.png",\r\n',
        "image;age\na.png;20\nb,c.png;\n",
        "image\tAGE\na.png\t20\nb,c.png\n\n",
        ' image ,age\n a.png ,20\n,\n"b,c.png" ,\n',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_tables_are_read_as_they_come(tmp_path, text, encoding):
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    assert read_table(tmp_path / "t.csv", ("image", "age"), "labels") == ROWS


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "no column 'image'.*found nothing"),
        (b"file,age\n", "no column 'image'.*found file, age"),
        (b'image,age\n"' + b"x" * 200_000 + b'",1', "field larger than"),
    ],
)
def test_what_is_no_such_table_is_told(tmp_path, content, found):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ConfigError, match=f"labels: .*t.csv .*{found}"):
        read_table(tmp_path / "t.csv", ("image", "age"), "--labels")


def test_lists_of_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = ["\ufeffa.png", "", '"with space.png"', r"faces\young\1.png", "caf\u00e9.png"]
    (tmp_path / "list.txt").write_text("\r\n".join(lines), encoding="utf-8")
    found = [path.as_posix() for path in read_paths("list.txt", "list")]
    assert found == ["a.png", "with space.png", "faces/young/1.png", "caf\u00e9.png"]
    (tmp_path / "list.txt").write_bytes(b"stra\xdfe.png\n")
    (path,) = read_paths("list.txt", "list")
    assert bytes(path) == b"stra\xdfe.png"


@pytest.mark.parametrize(
    "content", [b"{", b"[" * 100_000, b"\xff\xfe\x00", b'{"a": ' + b"9" * 5000 + b"}"]
)
def test_json_that_cannot_be_read_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ConfigError, match="datasets: .*a.json cannot be read as JSON"):
        read_json(tmp_path / "a.json", "--datasets")
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "a.json", "--datasets") == {"a": 1}


def test_text_is_bounded_and_regular(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "TEXT_BYTES", 3)
    (tmp_path / "a.txt").write_text("abcd")
    with pytest.raises(ConfigError, match="it has 4 bytes, more than 3; PADDLE_SAM_MAX_TEXT_MB"):
        read_text(tmp_path / "a.txt", "--labels")
    with pytest.raises(ConfigError, match="labels: .*cannot be read .it is a folder"):
        read_text(tmp_path, "--labels")
