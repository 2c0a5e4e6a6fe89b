#!/usr/bin/env bash
# Run the tests in the same environment as quickstart.sh, with the test extras (torch among them).
# Arguments go to pytest; the tests at full published size (up to 16 GB) and those that train, some
# minutes each, run with
#   bash scripts/test.sh -m "full_size or slow"
source "$(dirname "$0")/environment.sh" test ".[test]"
python scripts/download_weights.py landmarks lpips_alex lpips_vgg judges
ruff check .
ruff format --check .
python -m pytest --numprocesses auto --dist loadfile "$@"
