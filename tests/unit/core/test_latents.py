import pickle

import numpy as np
import paddle
import pytest
import torch

from paddle_sam.core.latents import list_codes, read_latent
from paddle_sam.core.pickles import read_torch_arrays
from paddle_sam.errors import CheckpointError

L, D = 4, 6
CODES = np.random.default_rng(0).normal(size=(3, L, D)).astype(np.float32)


def burst():
    pytest.fail("a file's code was run")


class Evil:
    def __reduce__(self):
        return burst, ()


def saved(path, content, legacy=False):
    if path.suffix == ".pt":
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    elif path.suffix == ".npz":
        np.savez(path, **content)
    else:
        np.save(path, content)
    return path


@pytest.mark.parametrize("code", [CODES[0], CODES[:1]])
@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.pt", "old.pt"])
def test_a_single_code_is_read_in_every_format(tmp_path, code, name):
    path = tmp_path / name
    content = {"w": code} if name == "a.npz" else code
    if path.suffix == ".pt":
        content = torch.from_numpy(code)
    saved(path, content, legacy=name == "old.pt")
    np.testing.assert_array_equal(read_latent(path, L, D, shown=False).w_plus, CODES[0])


def test_a_code_in_w_is_used_for_every_level(tmp_path):
    for name, w in (("a.npy", CODES[0, 0]), ("b.npy", CODES[0, :1])):
        found = read_latent(saved(tmp_path / name, w.astype(np.float64)), L, D, shown=False)
        np.testing.assert_array_equal(found.w_plus, np.tile(CODES[0, 0], (L, 1)))


def test_several_codes_of_an_array_are_numbered(tmp_path):
    """As e4e writes them: `latents.pt` [N, L, D]."""
    path = saved(tmp_path / "latents.pt", torch.from_numpy(CODES))
    assert list(list_codes(path)) == ["0", "1", "2"]
    np.testing.assert_array_equal(read_latent(path, L, D, False, "2").w_plus, CODES[2])
    with pytest.raises(CheckpointError, match="one code alone"):
        read_latent(path, L, D, shown=False)


def test_dictionaries_are_read_by_the_names_of_pictures(tmp_path):
    """Those of rosinality's projector, with image and noise, and of pSp's family."""
    code = torch.from_numpy(CODES[1])
    projected = {"img": torch.zeros(3, 8, 8), "latent": code, "noise": [torch.zeros(1, 1, 4, 4)]}
    path = saved(tmp_path / "ros.pt", {"faces/anna.jpg": projected, "faces/bea.jpg": projected})
    assert list(list_codes(path)) == ["anna", "bea"]
    np.testing.assert_array_equal(read_latent(path, L, D, False, "bea").w_plus, CODES[1])
    path = saved(tmp_path / "plain.pt", {"anna.jpg": torch.from_numpy(CODES[:2])})
    assert list(list_codes(path)) == ["anna_0", "anna_1"]


@pytest.mark.parametrize("steps", [list(CODES), list(CODES[:, None])])
def test_of_restyles_steps_the_last_is_taken(tmp_path, steps):
    """Its `latents.npy` is a pickled dict of lists, a code a step."""
    path = saved(tmp_path / "latents.npy", {"anna.png": steps, "bea.png": steps[:1]})
    np.testing.assert_array_equal(read_latent(path, L, D, False, "anna").w_plus, CODES[2])
    np.testing.assert_array_equal(read_latent(path, L, D, False, "bea").w_plus, CODES[0])


def test_parts_of_one_storage_are_told_apart(tmp_path):
    whole = torch.from_numpy(CODES)
    for legacy in (False, True):
        path = saved(tmp_path / "a.pt", {"x": whole[1], "y": whole[2].t()}, legacy)
        found = read_torch_arrays(path)
        np.testing.assert_array_equal(found["x"], CODES[1])
        np.testing.assert_array_equal(found["y"], CODES[2].T)


@pytest.mark.parametrize("name", ["zip.pt", "legacy.pt", "objects.npy", "bare.pd"])
def test_code_in_a_file_is_never_run(tmp_path, name):
    path = tmp_path / name
    if name == "bare.pd":
        path.write_bytes(pickle.dumps({"latent_code": Evil()}))
    else:
        saved(path, {"a": Evil()}, legacy=name == "legacy.pt")
    with pytest.raises(CheckpointError, match=r"test_latents\.burst"):
        list_codes(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_damage_is_named(tmp_path, legacy):
    whole = saved(tmp_path / "a.pt", torch.from_numpy(CODES), legacy).read_bytes()
    for length in range(0, len(whole) - 1, 97):
        (tmp_path / "cut.pt").write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"cut\.pt"):
            list_codes(tmp_path / "cut.pt")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (np.zeros((2, 3, 4, 5), np.float32), r"\[N, L, D\].*\[2, 3, 4, 5\]"),
        (np.arange(6), "int64"),
        (np.array(["text"]), "expected a code"),
    ],
)
def test_other_arrays_are_refused(tmp_path, content, words):
    with pytest.raises(CheckpointError, match=words):
        list_codes(saved(tmp_path / "a.npy", content))


def test_codes_of_another_generator_are_refused_with_both_shapes(tmp_path):
    path = saved(tmp_path / "a.npy", CODES[0])
    with pytest.raises(CheckpointError, match=r"\[4, 6\].*\[18, 512\]"):
        read_latent(path, 18, 512, shown=False)
    with pytest.raises(CheckpointError, match="picture"):
        read_latent(path, L, D)


def test_our_bare_file_is_that_of_paddle(tmp_path):
    paddle.save({"latent_code": paddle.to_tensor(CODES[0])}, str(tmp_path / "a.pd"))
    np.testing.assert_array_equal(list_codes(tmp_path / "a.pd")[""], CODES[0])
