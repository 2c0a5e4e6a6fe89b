"""Conversion of real files: there and back, what is refused, and that nothing is executed."""

import argparse
import os
import pickle
import resource
import zipfile
from pathlib import Path

import numpy as np
import paddle
import pytest
import torch

import paddle_sam
from convert.convert_weights import main as convert_weights
from paddle_sam.convert.convert import convert_file, explain, revert_file
from paddle_sam.core.weights import WeightFile, find_weight
from paddle_sam.errors import CheckpointError, OutputError
from tests import DEVICE

SHIPPED = ["sam_mini", "age_mini", "stylegan2_mini"]


@pytest.fixture
def torch_file(tmp_path):
    """Writes the torch checkpoint of a shipped model and gives its path."""

    def write(name: str) -> Path:
        path = tmp_path / f"{name}.pt"
        revert_file(find_weight(name), path)
        return path

    return write


def flat(value, prefix=""):
    if isinstance(value, dict):
        return {k: v for key in value for k, v in flat(value[key], f"{prefix}/{key}").items()}
    return {prefix: value}


@pytest.mark.parametrize("name", SHIPPED)
def test_torch_to_paddle_to_torch_is_bit_identical(torch_file, tmp_path, name):
    first = torch_file(name)
    report = convert_file(first, tmp_path / "there.pdparams")
    assert explain(first).startswith(f"{first}: {report.kind}\n")
    revert_file(tmp_path / "there.pdparams", tmp_path / "back.pt")
    before = flat(torch.load(first, weights_only=True))
    after = flat(torch.load(tmp_path / "back.pt", weights_only=True))
    assert before.keys() == after.keys()
    for key, value in before.items():
        if torch.is_tensor(value):
            assert value.dtype == after[key].dtype
            assert torch.equal(value, after[key]), key
        else:
            assert value == after[key], key


@pytest.mark.parametrize("name", SHIPPED)
def test_paddle_to_torch_to_paddle_keeps_every_value(torch_file, tmp_path, name):
    convert_file(torch_file(name), tmp_path / "there.pdparams")
    before, after = WeightFile.read(find_weight(name)), WeightFile.read(tmp_path / "there.pdparams")
    for part, entry in before.networks.items():
        assert entry.arch == after.networks[part].arch
        assert entry.state.keys() == after.networks[part].state.keys()
        for key, value in entry.state.items():
            np.testing.assert_array_equal(value, after.networks[part].state[key], key)


def test_linear_weights_are_transposed_and_square_ones_too(torch_file, tmp_path):
    state = torch.load(torch_file("age_mini"), weights_only=True)["state_dict"]
    network = paddle_sam.load(find_weight("age_mini"), device=DEVICE)
    for name in ("fc6", "fc7", "fc8_101"):
        weight = state[f"{name.replace('8_', '8-')}.weight"].float().numpy()
        np.testing.assert_array_equal(getattr(network, name).weight.numpy(), weight.T)


def test_a_network_trained_here_becomes_a_published_file(tmp_path):
    """Without the counters and filters of a source file, they are made anew."""
    saved = WeightFile.read(find_weight("sam_mini"))
    saved.source = None
    saved.write(tmp_path / "trained.pdparams")
    revert_file(tmp_path / "trained.pdparams", tmp_path / "trained.pt")
    revert_file(find_weight("sam_mini"), tmp_path / "whole.pt")
    trained = torch.load(tmp_path / "trained.pt", weights_only=True)
    whole = torch.load(tmp_path / "whole.pt", weights_only=True)
    assert trained["state_dict"].keys() == whole["state_dict"].keys()
    for name, value in whole["state_dict"].items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(trained["state_dict"][name], value), name
    assert torch.equal(trained["latent_avg"], whole["latent_avg"])
    convert_file(tmp_path / "trained.pt", tmp_path / "again.pdparams")
    again = WeightFile.read(tmp_path / "again.pdparams")
    assert (
        again.networks["sam"].arch == WeightFile.read(find_weight("sam_mini")).networks["sam"].arch
    )
    assert again.alignment == saved.alignment


def test_training_state_is_listed_as_not_carried(torch_file, tmp_path, capsys):
    path = torch_file("stylegan2_mini")
    content = torch.load(path, weights_only=True)
    content |= {"g_optim": {"state": {}}, "args": argparse.Namespace(size=64), "ada_aug_p": 0.1}
    torch.save(content, path)
    assert convert_weights([str(path), "--output", str(tmp_path / "out")]) == 0
    assert "not carried over: g_optim" in capsys.readouterr().out
    saved = WeightFile.read(tmp_path / "out" / "stylegan2_mini.pdparams")
    assert saved.source["extras"]["args"] == {"size": 64}


def test_legacy_torch_files_are_read(torch_file, tmp_path):
    path = torch_file("age_mini")
    content = torch.load(path, weights_only=True)
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    report = convert_file(tmp_path / "old.pth", tmp_path / "old.pdparams")
    assert (report.kind, report.counts["read"], report.counts["written"]) == ("dex_vgg", 32, 32)


def test_the_command_prints_a_table_and_goes_on_after_a_failure(torch_file, tmp_path, capsys):
    good, bad = torch_file("age_mini"), tmp_path / "bad.pt"
    bad.write_bytes(b"<!DOCTYPE html><title>Quota exceeded</title>")
    status = convert_weights([str(bad), str(good), "--output", str(tmp_path / "out")])
    out, err = capsys.readouterr()
    assert status == 1
    assert "web page" in err and str(bad) in err
    row = next(line for line in out.splitlines() if line.startswith("age_mini.pt")).split()
    assert row[1:7] == ["dex_vgg", "32", "3", "2", "0", "32"]
    assert Path(row[-1]).stat().st_size == int(row[7].replace(",", ""))


def test_results_are_not_replaced_without_force(torch_file, tmp_path, capsys):
    path = torch_file("age_mini")
    assert convert_weights([str(path)]) == 0
    assert convert_weights([str(path)]) == 2
    assert "--force replaces it" in capsys.readouterr().err
    assert convert_weights([str(path), "--force"]) == 0
    assert convert_weights(["--reverse", str(path.with_suffix(".pdparams"))]) == 2
    assert "--force" in capsys.readouterr().err


def test_two_files_that_would_become_one_are_refused(torch_file, tmp_path, capsys):
    path = torch_file("age_mini")
    other = tmp_path / "other" / "age_mini.pt"
    other.parent.mkdir()
    other.write_bytes(path.read_bytes())
    assert convert_weights([str(path), str(other), "--output", str(tmp_path / "out")]) == 2
    assert "two files would become" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


class Malice:
    """What an attacker's pickle does when it is loaded."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("reader", ["torch", "nvidia", "paddle"])
def test_files_that_carry_code_are_refused_and_nothing_runs(tmp_path, reader):
    trap, path = tmp_path / "executed", tmp_path / f"evil.{reader}"
    content = {"G_ema": Malice(trap), "state_dict": Malice(trap), "format": "paddle_sam"}
    if reader == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=4))
    with pytest.raises(CheckpointError, match="refused.*mkdir"):
        if reader == "paddle":
            paddle_sam.load(path)
        else:
            convert_file(path, tmp_path / "out.pdparams")
    assert not trap.exists()
    assert not (tmp_path / "out.pdparams").exists()


def truncated(path, tmp_path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def emptied(path, tmp_path):
    path.write_bytes(b"")


def web_page(path, tmp_path):
    path.write_bytes(b"\n<html><body>Google Drive - Virus scan warning</body></html>")


def other_project(path, tmp_path):
    torch.save({"model": {"backbone.weight": torch.zeros(3)}}, path)


def unreadable_index(path, tmp_path):
    """One byte of the pickle in the archive is another."""
    path.write_bytes(
        path.read_bytes().replace(b"X\x0a\x00\x00\x00state_dict", b"\xffstate_dict1234", 1)
    )


def torch_script(path, tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(path)


def a_list(path, tmp_path):
    torch.save([torch.zeros(2)], path)


def a_photograph(path, tmp_path):
    path.write_bytes(b"\xff\xd8\xff\xe0" + bytes(1000))


def a_zip(path, tmp_path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


def a_folder(path, tmp_path):
    path.unlink()
    path.mkdir()


def missing(path, tmp_path):
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncated, "truncated or damaged"),
        (emptied, "the file is empty"),
        (web_page, "web page saved under a weight file's name"),
        (other_project, "checkpoint of another project.*model"),
        (unreadable_index, "truncated or damaged .* bytes: pickle"),
        (torch_script, "refused: it holds more than weights .TorchScript"),
        (a_list, "expected a dict of tensors, found list"),
        (a_photograph, "not a PyTorch file"),
        (a_zip, "truncated or damaged"),
        (a_folder, "is a folder"),
        (missing, "there is no such file"),
    ],
)
def test_broken_checkpoints_are_explained(torch_file, tmp_path, damage, words):
    path = torch_file("age_mini")
    damage(path, tmp_path)
    with pytest.raises(CheckpointError, match=words) as error:
        convert_file(path, tmp_path / "out.pdparams")
    assert str(path) in str(error.value)
    assert not (tmp_path / "out.pdparams").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["state_dict"].update({"fc6.bias": 0.5}), "expected a tensor as fc6.bias"),
        (lambda c: c["state_dict"].update({"fc6.weight": torch.zeros(3)}), "not what their names"),
        (lambda c: c.update({"g": 1.0}), "not what their names"),
        (lambda c: c.update({"x": torch.zeros(3).to_sparse()}), "a tensor of a kind that no"),
    ],
)
def test_entries_of_another_kind_are_explained(torch_file, tmp_path, change, words):
    path = torch_file("age_mini")
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=f"age_mini.pt: .*{words}"):
        convert_file(path, tmp_path / "out.pdparams")


def test_options_that_are_no_plain_values_become_text(torch_file, tmp_path):
    path = torch_file("sam_mini")
    content = torch.load(path, weights_only=True)
    content["opts"] = {**content["opts"], "device": torch.device("cuda"), "sizes": torch.Size([2])}
    torch.save(content, path)
    convert_file(path, tmp_path / "out.pdparams")
    options = WeightFile.read(tmp_path / "out.pdparams").options
    assert (options["device"], options["sizes"]) == ("cuda", [2])


def test_a_converted_file_needs_no_conversion(tmp_path, capsys):
    assert convert_weights([str(find_weight("age_mini")), "--output", str(tmp_path)]) == 2
    assert "a weight file of this package, which needs no conversion" in capsys.readouterr().err


@pytest.fixture
def small_files_only():
    """The system refuses to write more than a megabyte to any file, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_full_disk_is_explained_and_leaves_nothing(torch_file, tmp_path, request, reverse):
    source = find_weight("age_mini") if reverse else torch_file("age_mini")
    request.getfixturevalue("small_files_only")
    target = tmp_path / "out" / "file"
    with pytest.raises(OutputError, match=f"{target}: could not be written"):
        (revert_file if reverse else convert_file)(source, target)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"<html>", "web page"),
        (b"PK\x03\x04" + bytes(100), "PyTorch file; convert it first"),
        (pickle.dumps({"linear.weight": [1]}), "not a weight file of paddle_sam"),
        (b"\x80\x05broken", "truncated or damaged"),
    ],
)
def test_load_explains_what_is_not_a_weight_file(tmp_path, content, words):
    path = tmp_path / "file.pdparams"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        paddle_sam.load(path)


def test_load_refuses_a_truncated_weight_file(tmp_path):
    data = find_weight("age_mini").read_bytes()
    path = tmp_path / "cut.pdparams"
    path.write_bytes(data[:-1000])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        paddle_sam.load(path)


def test_load_gives_each_part_in_eval_mode():
    path = find_weight("stylegan2_mini")
    generator = paddle_sam.load(path, device=DEVICE)
    assert not generator.training
    assert generator.latent_avg.shape == [128]
    with paddle.no_grad():
        images = generator([paddle.randn([2, 128])])
        scores = paddle_sam.load(path, part="d", device=DEVICE)(images)
    assert images.shape == [2, 3, 64, 64]
    assert scores.shape == [2, 1]
    with pytest.raises(paddle_sam.errors.ConfigError, match="holds g_ema, g, d, not 'x'"):
        paddle_sam.load(path, part="x")
