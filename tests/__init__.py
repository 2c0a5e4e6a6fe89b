"""The tests; `ROOT` is the repository, wherever a test file lies."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARITY = ROOT / "tests" / "parity"
# Where networks and tensors of tests are; `gpu:0` on a machine whose Paddle has one.
DEVICE = os.environ.get("PADDLE_SAM_TEST_DEVICE", "cpu")
