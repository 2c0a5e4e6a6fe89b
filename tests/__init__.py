"""The tests; `ROOT` is the repository, wherever a test file lies."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARITY = ROOT / "tests" / "parity"
