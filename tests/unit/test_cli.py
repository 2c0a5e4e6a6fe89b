"""The command `paddle-sam`."""

import re

import pytest

from paddle_sam import __version__, cli
from scripts.rebuild_examples import COPIED, run
from scripts.rebuild_examples import main as rebuild
from tests import ROOT

# Scripts of the published repository's own folder structure, of no use outside of it.
ONLY_HERE = {"scripts/fill_celeba_test", "scripts/compile_ranger", "scripts/rebuild_examples"}


def test_every_script_has_a_command():
    scripts = [*ROOT.glob("scripts/*.py"), *ROOT.glob("convert/*.py")]
    names = {f"{path.parent.name}/{path.stem}" for path in scripts if path.stem != "__init__"}
    assert {command.script for command in cli.COMMANDS.values()} == names - ONLY_HERE


def test_the_overview_names_every_command(capsys):
    assert cli.main([]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {name} " in printed for name in cli.COMMANDS)
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"paddle-sam {__version__}\n"


def test_an_unknown_command_is_refused_with_the_nearest(capsys):
    assert cli.main(["anmate"]) == 2
    assert "'anmate'; did you mean animate?" in capsys.readouterr().err


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_speaks_of_the_command_not_of_the_script(name, capsys):
    assert cli.main([name, "--help"]) == 0
    printed = capsys.readouterr().out
    command = cli.COMMANDS[name]
    assert f"python {command.script}.py" not in printed
    assert len(printed.splitlines()) > 5


def test_a_first_argument_is_the_photograph(tmp_path, capsys):
    assert cli.main(["age", str(tmp_path / "none.jpg"), "--no_align"]) == 2
    assert "none.jpg" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        cli.main(["age", "a.jpg", "--dry_run"])
    assert end.value.code == 0
    assert '"data_path": "a.jpg"' in capsys.readouterr().out


def test_weights_that_are_missing_are_fetched_once(monkeypatch):
    fetched = []
    monkeypatch.setattr(
        "paddle_sam.convert.obtain_weights.obtain_all", lambda names, folder: fetched.extend(names)
    )
    monkeypatch.setenv("PADDLE_SAM_WEIGHTS", "/nowhere")
    monkeypatch.setattr("paddle_sam.core.weights._REPOSITORY", ROOT / "nowhere")
    monkeypatch.setattr("paddle_sam.core.weights.known_weight", cli_weight)
    cli.fetch(["landmarks"])
    assert fetched == ["landmarks"]


def cli_weight(name):
    from paddle_sam.core.weights import Weight

    return Weight(name, f"{name}.dat", "", "", "", "", {"kind": "package"})


def test_shipped_pictures_are_made_again_by_commands_that_exist(capsys):
    assert rebuild(["--list"]) == 0
    commands = capsys.readouterr().out.splitlines()
    assert len(commands) >= 14 and "python scripts/edit.py" in commands
    for line in commands:
        script = line.partition("python ")[2].split()[0]
        assert script == "-m" or (ROOT / script).is_file()
    page = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    copies = dict(re.search(COPIED, row).groups() for row in page.splitlines() if "copied" in row)
    assert copies["docs/ageing_report.html"] == "results/rebuilt/ageing/report.html"
    for name, source in copies.items():
        assert (ROOT / name).is_file() and source.startswith("results/rebuilt/")


def test_a_command_for_an_example_may_set_its_environment():
    assert run('RIGHT=7 python -c \'import os, sys; sys.exit(os.environ["RIGHT"] != "7")\'')
    assert not run("python -c 'raise SystemExit(3)'")
