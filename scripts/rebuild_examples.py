"""Make every shipped picture, film and report again that the embedded models are behind.

The commands are those of the tables in examples/README.md. After a change of an embedded model, of
rendering or of drawing, run it and look at what it wrote.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from paddle_sam.core.command import command

ROOT = Path(__file__).resolve().parents[1]
COMMAND, COPIED = r"`((?:\w+=\S+ )?python [^`]+)`", r"`([^`]+)`.* copied from `([^`]+)`"


def run(line: str) -> bool:
    """Run a command, which may begin with NAME=VALUE; return whether it succeeded."""
    words = shlex.split(line)
    start = words.index("python")
    environment = os.environ | dict(word.split("=", 1) for word in words[:start])
    words = [sys.executable, *words[start + 1 :]]
    return subprocess.run(words, cwd=ROOT, env=environment, check=False).returncode == 0


@command
def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="rows that hold this text")
    parser.add_argument("--list", action="store_true", help="print the commands, run nothing")
    options = parser.parse_args(argv)
    page = (ROOT / "examples" / "README.md").read_text(encoding="utf-8").splitlines()
    rows = [row for row in page if row.startswith("|") and options.only in row]
    if options.list:
        print(*re.findall(COMMAND, "\n".join(rows)), sep="\n")
        return 0
    shutil.rmtree(ROOT / "results" / "rebuilt", ignore_errors=True)  # commands resume there
    failed = []
    for row in rows:
        lines = re.findall(COMMAND, row)
        failed += [line for line in lines if not run(line)]
        if (copied := re.search(COPIED, row)) and not set(lines) & set(failed):
            shutil.copy(ROOT / copied[2], ROOT / copied[1])
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
