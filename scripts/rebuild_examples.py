"""Make every shipped picture, film and report again that the embedded models are behind.

The commands are those that examples/README.md names. After a change of an embedded model, of
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
SCRATCH = ROOT / "results" / "rebuilt"  # of what is copied to its place


def recipes(page: str) -> list[tuple[list[str], tuple[str, str] | None]]:
    """Of each row of the page's tables its commands, and what is then copied where to.

    >>> recipes("| `a.jpg` | `python b.py` | copied from `c.jpg` |")
    [(['python b.py'], ('c.jpg', 'a.jpg'))]
    """
    found = []
    for row in page.splitlines():
        commands = re.findall(r"`((?:\w+=\S+ )?python [^`]+)`", row)
        source, name = re.search(r"copied from `([^`]+)`", row), re.search(r"`([^`]+)`", row)
        if row.startswith("|") and commands:
            found.append((commands, (source[1], name[1]) if source else None))
    return found


def run(line: str) -> bool:
    """Run a command, which may begin with NAME=VALUE; return whether it succeeded."""
    words = shlex.split(line)
    given = dict(word.split("=", 1) for word in words[: words.index("python")])
    words = [sys.executable, *words[words.index("python") + 1 :]]
    return subprocess.run(words, cwd=ROOT, env=os.environ | given, check=False).returncode == 0


@command
def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="rows that hold this text")
    parser.add_argument("--list", action="store_true", help="print the commands, run nothing")
    options = parser.parse_args(argv)
    page = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    page = "\n".join(line for line in page.splitlines() if options.only in line)
    failed = []
    if not options.list:
        shutil.rmtree(SCRATCH, ignore_errors=True)  # commands resume what they find
    for commands, copied in recipes(page):
        for line in commands:
            print(line, flush=True)
            if not options.list and not run(line):
                failed.append(line)
                break
        else:
            if copied and not options.list:
                shutil.copy(ROOT / copied[0], ROOT / copied[1])
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
