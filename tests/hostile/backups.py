"""Backups of a broker under load, each restored and compared with what its clients saw.

    python -m tests.hostile backups [--count N] [--seconds S] [--stored N]

A broker on disk takes messages from clients in processes of their own; one mailbox only fills,
another is read and acknowledged. Backups are taken meanwhile, then the broker is killed (SIGKILL)
in the midst of one more. Each backup is restored into an empty folder with ``kotak admin restore``
and started. What must hold stands in `tests.hostile.backups_verdict`. The times are those of one
machine at one moment, and judge nothing.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from argon2 import PasswordHasher
from rich import box
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from clients import Client
from clients.errors import KotakError
from tests.hostile.backups_load import (
    KEPT,
    PASSWORD,
    SENDERS,
    TAKEN,
    Seen,
    load,
    noted,
    text_of,
)
from tests.hostile.backups_verdict import Found, Judged, Window, judge
from tests.load.broker_process import BrokerError, BrokerProcess

HELP: Final = "backups under load, a kill, and what each restored backup holds"

#: Where nobody tells how wide it may be.
_WIDTH: Final = 110
_STORED: Final = "stored"
_COMMAND_S: Final = 120
Show = Callable[[str], None]


class Taken(NamedTuple):
    """One backup: its file, when it was taken, and what the broker told of it."""

    path: Path
    window: Window
    told: dict[str, Any]


class Row(NamedTuple):
    """What came of one backup."""

    taken: Taken
    judged: Judged
    integrity: str
    p99_ms: float


class Outcome(NamedTuple):
    """``quiet_ms`` is the senders' p99 while no backup was taken; ``half``: files left broken."""

    rows: list[Row]
    quiet_ms: float
    half: list[str]
    killed_within: bool

    @property
    def held(self) -> bool:
        sound = all(row.integrity == "ok" and not row.judged.breaches for row in self.rows)
        return sound and not self.half and bool(self.rows)


def main(argv: Sequence[str]) -> int:
    """Run the trial and print its table. Returns 0 where all held, 1 where not."""
    parser = argparse.ArgumentParser(prog="scripts/hostile backups", description=HELP)
    parser.add_argument("--count", type=int, default=5, help="backups to take (5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of load around each (3)")
    parser.add_argument("--stored", type=int, default=200_000, help="messages from before (200000)")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    args = parser.parse_args(argv)
    terminal = Console(stderr=args.json)
    console = terminal if terminal.is_terminal else Console(stderr=args.json, width=_WIDTH)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with (
        tempfile.TemporaryDirectory(prefix="kotak-backups-") as folder,
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task("starting")
        try:
            outcome = trial(
                Path(folder),
                count=args.count,
                seconds=args.seconds,
                stored=args.stored,
                show=lambda what: bar.update(task, description=what),
            )
        except BrokerError as error:
            sys.stderr.write(f"hostile: {error}\n")
            return 1
    if args.json:
        sys.stdout.write(json.dumps(_figures(outcome)) + "\n")
    else:
        print_outcome(outcome, console)
    return 0 if outcome.held else 1


def trial(
    folder: Path, *, count: int, seconds: float, stored: int, show: Show = lambda _: None
) -> Outcome:
    """Take ``count`` backups, ``seconds`` apart, and judge each. Errors: `BrokerError`."""
    notes = folder / "notes"
    notes.mkdir()
    _import_accounts(folder / "data")
    with BrokerProcess(folder / "data") as broker:
        show(f"storing {stored:,} messages")
        _store(broker, stored)
        with load(broker.doors.zmq, notes):
            taken = []
            for number in range(count):
                show(f"backup {number + 1} of {count}")
                time.sleep(seconds)
                taken.append(_take(broker, f"backup{number}"))
            killed_within = _kill_within(broker)
    seen = noted(notes)
    half = [path.name for path in _backups(broker) if _integrity(path) != "ok"]
    rows = []
    for each in taken:
        show(f"restoring {each.path.name}")
        found = _restored(folder, each.path)
        judged = judge(each.window, seen, found)
        judged.breaches.extend(_stored_breaches(found[_STORED], stored))
        rows.append(Row(each, judged, _integrity(each.path), _p99_ms(seen, [each.window])))
    windows = [each.window for each in taken]
    return Outcome(rows, _p99_ms(seen, windows, within=False), half, killed_within)


# --- the broker --------------------------------------------------------------------------------


def _import_accounts(data: Path) -> None:
    """Make the accounts with a hash that costs little: this is no trial of logins."""
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    lines = "".join(f"{user}:{cheap}\n" for user in (*SENDERS, KEPT, TAKEN, _STORED))
    _kotak("user", "import", "-", "--data", str(data), typed=lines)


def _kotak(*words: str, typed: str = "") -> None:
    done = subprocess.run(
        [sys.executable, "-m", "broker.cli", *words],
        input=typed, capture_output=True, text=True, check=False, timeout=_COMMAND_S,
    )  # fmt: skip
    if done.returncode:
        raise BrokerError(f"kotak {' '.join(words[:2])} failed:\n{done.stderr.strip()}")


def _store(broker: BrokerProcess, count: int) -> None:
    """Give the broker something to copy."""
    with Client(broker.doors.zmq) as client:
        client.login(SENDERS[0], PASSWORD)
        messages = ((_STORED, text_of(SENDERS[0], i)) for i in range(count))
        for receipt in client.send_many(messages):
            if isinstance(receipt, KotakError):
                raise BrokerError(f"a message could not be stored: {receipt}")


def _take(broker: BrokerProcess, name: str) -> Taken:
    note = json.loads((broker.data / "admin.json").read_text())
    with Client(note["zmq"], token=note["token"]) as client:
        client.request("broker_status", {})  # the connection stands: what follows is the backup
        t0 = time.monotonic_ns()
        told = client.request("broker_backup", {"name": name}, timeout_ms=_COMMAND_S * 1_000)
        return Taken(Path(told["path"]), Window(t0, time.monotonic_ns()), told)


def _kill_within(broker: BrokerProcess) -> bool:
    """Kill the broker in the midst of one more backup; tell whether that was hit."""

    def ask() -> None:
        note = json.loads((broker.data / "admin.json").read_text())
        with suppress(KotakError), Client(note["zmq"], token=note["token"]) as client:
            client.request("broker_backup", {"name": "last"}, timeout_ms=2_000)

    thread = threading.Thread(target=ask)
    thread.start()
    folder, hit = broker.data / "backups", False
    while thread.is_alive() and not hit:
        hit = any(folder.glob("*.partial"))
    broker.kill()
    thread.join()
    return hit and not (folder / "last.db").exists()


def _backups(broker: BrokerProcess) -> Iterator[Path]:
    return (broker.data / "backups").glob("*.db")


def _integrity(path: Path) -> str:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        try:
            return str(database.execute("PRAGMA integrity_check(1)").fetchone()[0])
        except sqlite3.DatabaseError as error:
            return str(error)


# --- what is there -----------------------------------------------------------------------------


def _restored(folder: Path, backup: Path) -> dict[str, list[Found]]:
    """Restore into an empty folder, start, and read every mailbox to its end."""
    data = folder / f"restored-{backup.stem}"
    _kotak("admin", "restore", str(backup), "--data", str(data))
    with BrokerProcess(data) as broker:
        return {user: _read(broker, user) for user in (KEPT, TAKEN, _STORED)}


def _read(broker: BrokerProcess, user: str) -> list[Found]:
    found: list[Found] = []
    with Client(broker.doors.zmq) as client:
        client.login(user, PASSWORD)
        while True:
            page = client.inbox(limit=1_000, after=found[-1].seq if found else None)
            found += [Found(each.seq, each.text) for each in page.messages]
            if not page.more:
                return found


def _stored_breaches(found: Sequence[Found], stored: int) -> list[str]:
    wanted = [text_of(SENDERS[0], i) for i in range(stored)]
    if [each.text for each in found] == wanted:
        return []
    return [f"of {stored} messages from before the load {len(found)} are there, or out of order"]


def _p99_ms(seen: Seen, windows: Sequence[Window], *, within: bool = True) -> float:
    """Return the 99th percentile of the time to an OK, in windows or out of them."""
    times = sorted(
        each.t1 - each.t0
        for each in seen.sent
        if each.t1 is not None and any(each.t0 < w.t1 and each.t1 > w.t0 for w in windows) is within
    )
    return times[int(len(times) * 0.99)] / 1e6 if times else 0.0


# --- the table -----------------------------------------------------------------------------------

_HEADINGS: Final = (
    "backup", "OK before", "found", "extra", "taken before", "integrity", "took", "p99", "result",
)  # fmt: skip


def print_outcome(outcome: Outcome, console: Console) -> None:
    """Print a row for each backup, the breaches in full, and what it cost the senders."""
    table = Table(*_HEADINGS, box=box.SIMPLE)
    for column in table.columns[1:5] + table.columns[6:8]:
        column.justify = "right"
    for taken, judged, integrity, p99_ms in outcome.rows:
        table.add_row(
            taken.path.stem,
            *(f"{figure:,}" for figure in judged[:4]),
            integrity,
            f"{taken.told['took_ms']:,} ms",
            f"{p99_ms:.1f} ms",
            Text(f"{len(judged.breaches)} breaches", "red" if judged.breaches else "green"),
        )
    console.print(table)
    for row in outcome.rows:
        for breach in row.judged.breaches:
            console.print(Text(f"{row.taken.path.stem}: {breach}", "red"), soft_wrap=True)
    for name in outcome.half:
        console.print(Text(f"{name} does not hold together", "red"))
    where = "in the midst of one more backup" if outcome.killed_within else "after the last backup"
    size = sum(row.taken.told["bytes"] for row in outcome.rows) / max(1, len(outcome.rows)) / 1e6
    console.print(
        f"senders' p99 without a backup {outcome.quiet_ms:.1f} ms; {size:.0f} MB a backup; "
        f"the broker was killed {where}"
    )


def _figures(outcome: Outcome) -> dict[str, Any]:
    rows = [
        {
            **row.judged._asdict(),
            "integrity": row.integrity,
            "p99_ms": round(row.p99_ms, 2),
            "took_ms": row.taken.told["took_ms"],
            "bytes": row.taken.told["bytes"],
        }
        for row in outcome.rows
    ]
    return {
        "backups": rows,
        "quiet_p99_ms": round(outcome.quiet_ms, 2),
        "half": outcome.half,
        "killed_within": outcome.killed_within,
        "held": outcome.held,
    }
