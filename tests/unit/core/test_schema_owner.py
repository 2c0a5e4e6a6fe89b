"""Only the owner of weight files knows what their entries are called."""

import ast

import pytest

from tests import ROOT

OWNER = ROOT / "paddle_sam" / "core" / "weights.py"
# Keys that nothing but a weight file has; `source`, `options`, ... are words of other files too.
KEYS = {"networks", "arch", "state", "latent_avg", "alignment"}
# The layouts of torch checkpoints use the same words.
OTHER_LAYOUTS = ROOT / "paddle_sam" / "convert"
FILES = [
    path
    for folder in ("paddle_sam", "scripts", "convert")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path != OWNER and path.parent != OTHER_LAYOUTS
]


def keys_named(tree: ast.AST) -> set[str]:
    """Return the constants that a module uses as keys of dictionaries."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            found += node.keys
        elif isinstance(node, ast.Subscript):
            found.append(node.slice)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("get", "pop"):
            tensors = getattr(node.func.value, "attr", "") == "state"  # by name, of an entry
            found += [] if tensors else node.args[:1]
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            found.append(node.left)
    return {node.value for node in found if isinstance(node, ast.Constant)} & KEYS


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_other_module_names_a_key_of_weight_files(path):
    assert not keys_named(ast.parse(path.read_text("utf-8")))


@pytest.mark.parametrize(
    "text", ["x['state']", "x.get('state')", "{'state': 1}", "'state' in x", "x.pop('state', 0)"]
)
def test_a_key_is_found_however_it_is_used(text):
    assert keys_named(ast.parse(text)) == {"state"}
