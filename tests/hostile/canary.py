"""No secret anywhere: canaries go through a real broker, and are looked for in all that it leaves.

``scripts/hostile canary``. Passwords, tokens, keys, hashes and bodies are sent through every
command and door, rightly and wrongly; the broker fails, crashes, is killed and meets a broken disk.
Then logs, pages, refusals, command lines, files and every column of the database are searched.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.hostile.canary_course import Course
from tests.hostile.canary_evidence import Finding

HELP: Final = "secrets through every command and door, and the search for them in all that is left"
_SHOWN_MAX: Final = 10


def main(argv: Sequence[str]) -> int:
    """Return 0 where no secret leaked, 1 where one did, 2 for a wrong command line."""
    parser = argparse.ArgumentParser(prog="scripts/hostile canary", description=HELP)
    parser.add_argument("--keep", metavar="FOLDER", type=Path, help="leave the broker's files here")
    try:
        options = parser.parse_args(argv)
    except SystemExit as ended:
        return 2 if ended.code else 0
    if shutil.which("openssl") is None:
        sys.stderr.write("canary: it needs openssl to make a certificate: install it\n")
        return 2
    console, began = Console(), time.monotonic()
    with console.status("starting") as status, tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            sys.stderr.write(f"canary: {folder} is not empty: choose another with --keep\n")
            return 2
        course = Course(folder, status.update)
        evidence = course.run()
        findings = evidence.search(lambda place: status.update(f"searching: {place}"))
    seconds = time.monotonic() - began
    return report(findings, console, f"{len(course.canaries.all())} secrets, {seconds:.0f} s")


def report(findings: Sequence[Finding], console: Console, summary: str) -> int:
    """Print the table and what leaked; return the exit code."""
    table = Table("place", "bytes searched", "allowed", "not allowed", box=box.SIMPLE)
    for column in table.columns[1:]:
        column.justify = "right"
    for each in findings:
        leaked = Text(str(len(each.leaked)), "red" if each.leaked else "green")
        table.add_row(each.place, f"{each.searched_bytes:,}", str(len(each.allowed)), leaked)
    console.print(table)
    for each in findings:
        for canary in each.leaked[:_SHOWN_MAX]:
            console.print(Text(f"{each.place}: a {canary.kind}: {canary.name}", "red"))
        if len(each.leaked) > _SHOWN_MAX:
            console.print(Text(f"{each.place}: {len(each.leaked) - _SHOWN_MAX} more", "red"))
    leaks = sum(len(each.leaked) for each in findings)
    verdict = "no secret where none belongs" if not leaks else f"{leaks} secrets leaked"
    console.print(f"{verdict}; {summary}")
    return 1 if leaks else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
