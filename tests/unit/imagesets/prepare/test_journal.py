"""What a preparation keeps of an unfinished run, and that a finished one leaves nothing."""

import pytest

from paddle_sam.imagesets.prepare.journal import Journal

SETTINGS = {"size": 64}


def interrupted(folder):
    with pytest.raises(KeyboardInterrupt), Journal(folder, SETTINGS) as journal:
        journal.add("a", {"stamp": "1"}, [b"first", b"second"])
        raise KeyboardInterrupt


def test_an_interrupted_run_keeps_what_it_has_done(tmp_path):
    interrupted(tmp_path / "work")
    with Journal(tmp_path / "work", SETTINGS) as journal:
        assert journal.has("a", "1") and not journal.has("a", "2") and not journal.has("b", "1")
        assert journal.image("a", 1).read_bytes() == b"second"
    assert not (tmp_path / "work").exists()  # done: it was left without an error


@pytest.mark.parametrize("damage", [b'{"key": "b"', b"no JSON\n"])
def test_a_line_that_was_cut_off_is_dropped(tmp_path, damage):
    interrupted(tmp_path / "work")
    with (tmp_path / "work" / "journal.jsonl").open("ab") as lines:
        lines.write(damage)
    with Journal(tmp_path / "work", SETTINGS) as journal:
        assert set(journal.records) == {"a"}
        journal.add("c", {"stamp": "3"})
        assert journal.image("a", 0).read_bytes() == b"first"


def test_images_that_are_not_whole_are_made_again(tmp_path):
    interrupted(tmp_path / "work")
    images = tmp_path / "work" / "images.bin"
    images.write_bytes(images.read_bytes()[:-1])
    with Journal(tmp_path / "work", SETTINGS) as journal:
        assert not journal.has("a", "1")


def test_a_run_that_did_nothing_leaves_nothing(tmp_path):
    with pytest.raises(ValueError), Journal(tmp_path / "work", SETTINGS):
        raise ValueError
    assert not (tmp_path / "work").exists()
