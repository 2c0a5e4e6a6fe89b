"""Make the committed examples again, with the commands that examples/README.md names.

After a change of the embedded model, of rendering or of drawing, run it and look at what it wrote.
"""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

from paddle_sam.core.command import command

ROOT = Path(__file__).resolve().parents[1]


@command
def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="commands that hold this text")
    parser.add_argument("--list", action="store_true", help="print the commands, run nothing")
    options = parser.parse_args(argv)
    page = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    commands = [line for line in re.findall(r"`python ([^`]+)`", page) if options.only in line]
    failed = []
    for line in commands:
        print(f"python {line}", flush=True)
        if options.list:
            continue
        done = subprocess.run([sys.executable, *shlex.split(line)], cwd=ROOT, check=False)
        if done.returncode:
            failed.append(line)
    for line in failed:
        print(f"failed: python {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
