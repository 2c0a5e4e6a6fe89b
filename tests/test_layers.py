"""Which part of the package may import which: each row the rows above it, as the table says."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "paddle_sam"

# Folder -> what it may import besides itself and `common`. Entries are folders or single modules.
LAYERS = {
    "common": [],
    "configs": [],
    "models": [],
    "optimizers": [],
    "data": [],
    "losses": ["models"],
    "converters": ["models"],
    "metrics": ["configs", "models", "data", "losses.lpips"],
    "export": ["models"],
    "inference": ["configs", "models", "data", "losses", "export"],
    "preparation": ["configs", "models", "data", "inference.sheets"],
    "evaluation": ["configs", "models", "data", "losses.lpips", "metrics", "inference"],
    "training": ["configs", "models", "optimizers", "data", "losses", "metrics"],
}
FILES = sorted(PACKAGE.rglob("*.py"))
COMMANDS = sorted([*ROOT.glob("scripts/*.py"), *ROOT.glob("convert/*.py")])


def imported(path: Path) -> list[str]:
    """Modules of this project that a file imports anywhere, functions included."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            # `from paddle_sam.models import sam` names a module only here.
            found += [node.module, *[f"{node.module}.{alias.name}" for alias in node.names]]
    ours = ("paddle_sam", "scripts", "convert", "tests", "benchmarks")
    return [name for name in found if name.split(".")[0] in ours]


def within(name: str, entry: str) -> bool:
    return name == entry or name.startswith(f"{entry}.")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_upwards(path):
    folder = path.relative_to(PACKAGE).parts[0]
    if path.parent == PACKAGE:
        return  # `paddle_sam/__init__.py` hands out what the others make, on demand
    allowed = [f"paddle_sam.{entry}" for entry in (folder, "common", *LAYERS[folder])]
    for name in imported(path):
        known = any(within(name, entry) or within(entry, name) for entry in allowed)
        assert known, f"{path.relative_to(ROOT)} imports {name}"


def test_every_folder_has_its_row():
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert folders <= set(LAYERS)


def test_the_table_has_no_circle():
    done = []
    for folder, entries in LAYERS.items():
        assert all(entry.split(".")[0] in done for entry in entries), folder
        done.append(folder)


def test_nothing_imports_the_commands():
    for path in [*FILES, *COMMANDS]:
        for name in imported(path):
            assert name.split(".")[0] == "paddle_sam", f"{path.name} imports {name}"


def test_torch_is_named_in_one_place():
    """Only reading and writing of torch files needs it, and only when it is done."""
    for path in [*FILES, *COMMANDS]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] in ("torch", "torchvision") for name in names):
                assert path.name == "torch_checkpoint.py", path.name
                assert node not in top, path.name


def test_commands_are_thin():
    for path in COMMANDS:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 60, path.name
        top = [node.module for node in ast.parse(text).body if isinstance(node, ast.ImportFrom)]
        ours = [name for name in top if within(name, "paddle_sam")]
        assert all(within(name, "paddle_sam.common") for name in ours), (
            f"{path.name} imports {ours} before it has read its options"
        )
