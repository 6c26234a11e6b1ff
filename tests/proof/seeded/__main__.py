"""``python -m tests.proof.seeded``: plant each bug, and tell what caught it and how fast."""

from __future__ import annotations

import argparse
import json
import sys

from rich import box
from rich.console import Console
from rich.table import Table

from tests.proof.seeded.bugs import BUGS
from tests.proof.seeded.hunt import Catch, hunt
from tests.simulator.disk import disks


def main() -> int:
    """Return 0 where every bug was caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof.seeded", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="at most so long a bug")
    parser.add_argument("--only", metavar="NAME", help="this bug only")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    console = Console(stderr=arguments.json)
    catches: list[Catch] = []
    with disks() as place, console.status("") as status:
        for bug in BUGS:
            if arguments.only in (None, bug.name):
                status.update(f"{bug.name} ({len(catches) + 1} of {len(BUGS)})")
                catches.append(hunt(bug, place, seconds_max=arguments.seconds))
                console.log(f"{bug.name}: {catches[-1].law or 'NOT CAUGHT'}")
    if arguments.json:
        sys.stdout.write(json.dumps([_fields(each) for each in catches]) + "\n")
    else:
        console.print(_table(catches))
    return int(not all(each.caught for each in catches))


def _fields(catch: Catch) -> dict[str, object]:
    return catch._asdict() | {"bug": catch.bug.name, "seconds": round(catch.seconds, 2)}


def _table(catches: list[Catch]) -> Table:
    table = Table("bug", "caught by", "seconds", "seeds", "how", box=box.SIMPLE)
    for bug, law, sentence, seed, seeds, seconds in catches:
        caught = law or "[red]nothing[/]"
        table.add_row(bug.name, caught, f"{seconds:.1f}", str(seeds), f"seed {seed}: {sentence}")
    return table


if __name__ == "__main__":
    sys.exit(main())
