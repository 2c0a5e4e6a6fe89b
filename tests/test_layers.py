"""Which part of the package may import which: each row the rows above it, as the table says."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

PACKAGE = ROOT / "paddle_sam"

# Folder -> what it may import besides itself, `errors` and `options`. Entries are folders (with
# what lies in them) or single modules; a folder in a folder has its own row and may import its
# parent.
LAYERS = {
    "core": [],
    "networks": ["core"],
    "faces": ["core", "networks"],
    "imagesets": ["core"],
    "training": ["core", "networks"],
    "export": ["core", "networks"],
    "convert": ["core", "networks"],
    "metrics": ["core", "networks", "faces", "imagesets"],
    "ageing": ["core", "networks", "faces", "metrics", "export"],
    "imagesets.prepare": ["core", "faces"],
    "stylegan2": ["core", "networks", "imagesets", "metrics", "export"],
    "stargan2": ["core", "networks", "faces", "imagesets", "metrics", "training"],
    "ageing.train": ["core", "networks", "imagesets", "training"],
    "stylegan2.train": ["core", "networks", "imagesets", "metrics", "training"],
    "demo": ["core", "faces", "metrics", "ageing"],
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


def row_of(name: str) -> str:
    """The deepest folder of the table that a module lies in."""
    return max((row for row in LAYERS if within(name, f"paddle_sam.{row}")), key=len, default="")


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {dotted(path): path for path in FILES}


def modules_imported(path: Path) -> set[str]:
    """Modules of the package that a file imports; of `from a.b import c`, a.b.c or else a.b."""
    return {name for name in imported(path) if name in MODULES and MODULES[name].stem != "__init__"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_upwards(path):
    name = dotted(path)
    row = row_of(name)
    if path.parent == PACKAGE:
        return  # `paddle_sam/__init__.py` hands out what the others make, on demand
    parents = [row.rsplit(".", 1)[0]] if "." in row else []
    allowed = [f"paddle_sam.{entry}" for entry in ("errors", "options", *parents, *LAYERS[row])]
    for other in modules_imported(path):
        known = row_of(other) == row or any(within(other, entry) for entry in allowed)
        assert known, f"{path.relative_to(ROOT)} imports {other}"


def test_every_folder_has_its_row():
    folders = {path.parent.relative_to(PACKAGE) for path in FILES} - {Path()}
    assert {".".join(folder.parts) for folder in folders} == set(LAYERS)


def test_the_table_has_no_circle():
    done = []
    for folder, entries in LAYERS.items():
        assert all(any(within(entry, row) for row in done) for entry in entries), folder
        done.append(folder)


def test_no_module_imports_itself_in_a_circle():
    left = {name: modules_imported(path) for name, path in MODULES.items()}
    while ready := [name for name, needs in left.items() if not needs & set(left)]:
        for name in ready:
            del left[name]
    assert not left


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
                assert path.name == "torch_file.py", path.name
                assert node not in top, path.name


def test_commands_are_thin():
    for path in COMMANDS:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 60, path.name
        top = [node.module for node in ast.parse(text).body if isinstance(node, ast.ImportFrom)]
        ours = [name for name in top if within(name, "paddle_sam")]
        assert all(within(name, "paddle_sam.core") for name in ours), (
            f"{path.name} imports {ours} before it has read its options"
        )


def reached(path: Path) -> set[str]:
    """Modules that a script leads to, by its imports and by the functions that it names."""
    found, waiting = set(), [path]
    while waiting:
        path = waiting.pop()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts = [str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        named = {text.partition(":")[0] for text in texts if ":" in text}
        new = (modules_imported(path) | named & set(MODULES)) - found
        found |= new
        waiting += [MODULES[name] for name in new]
    return found


# As many as there are; whoever needs another looks first whether one of these is the place for it.
def test_few_modules_lead_from_the_training_of_stylegan2():
    modules = reached(ROOT / "scripts" / "train_stylegan2.py")
    assert len(modules) <= 27, sorted(modules)


def test_few_modules_make_an_age_strip(tmp_path):
    """What is loaded, by eager Paddle; exported models take two more once, to be made."""
    code = f"""
import runpy, sys
sys.argv = ["strip", "--exp_dir", {str(tmp_path)!r}, "--engine", "eager", "--target_age", "20"]
try:
    runpy.run_path("scripts/inference_side_by_side.py", run_name="__main__")
except SystemExit as end:
    assert end.code == 0, end.code
print(*sys.modules)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    names = set(done.stdout.splitlines()[-1].split()) & set(MODULES)
    modules = sorted(name for name in names if MODULES[name].stem != "__init__")
    assert len(modules) <= 27, modules


# These are about the CPU itself; the engine's tests name it as an argument by position.
OF_THE_CPU = {"core/test_device.py", "scripts/test_benchmarks.py", "parity/make_reference.py"}


def test_one_constant_names_the_device_of_tests():
    pinned = re.compile(r"""device["']?(=|: |, )["']cpu["']""")
    assert pinned.search("load(path, device='cpu')") and pinned.search('["--device", "cpu"]')
    for path in (ROOT / "tests").rglob("*.py"):
        if "/".join(path.parts[-2:]) not in OF_THE_CPU and path != Path(__file__):
            assert not pinned.search(path.read_text(encoding="utf-8")), path
