# Sourced by quickstart.sh and test.sh: makes the virtual environment .venv once, installs into it
# what "$1" names (a pip requirement of this repository) when that has changed, and activates it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

supported='import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))'
python=""
for candidate in python3 python3.12 python3.11 python3.10 python; do
    if "$candidate" -c "$supported" 2>/dev/null; then python=$candidate && break; fi
done
if [ -z "$python" ]; then
    echo "error: Python 3.10, 3.11 or 3.12 is needed, found $(python3 --version 2>&1 || true)" >&2
    exit 1
fi

if ! [ -x .venv/bin/python ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    echo "making .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv || {
        echo "error: $python has no venv module; on Debian or Ubuntu: apt install python3-venv" >&2
        exit 1
    }
fi

stamp=".venv/installed-$1"
wanted="$PWD $(cat requirements.txt pyproject.toml)"  # what is installed names this folder
if [ "$(cat "$stamp" 2>/dev/null || true)" != "$wanted" ]; then
    echo "installing (about 1 GB the first time; minutes)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -e "$2"
    printf '%s' "$wanted" >"$stamp"
fi
export PATH="$PWD/.venv/bin:$PATH"
