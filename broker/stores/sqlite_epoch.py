"""Tells whether this database is a later state of the one that was here, or an earlier one.

Beside the database lies a witness, a small file that says how far sequences had been given out. It
is written after the fact, so that it can only lag behind; a database that is behind *it*, or that
comes without it, was put back, and begins a new epoch. Source: docs/DURABILITY.md, "When history
was lost".
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import sqlite3
import time
from pathlib import Path
from typing import Final, NamedTuple

from broker.core.model import Epoch, Lost
from broker.stores.folder import sync_folder

log = logging.getLogger("kotak.store")

#: The witness's name beside the database.
WITNESS_NAME: Final = "kotak.seen"
#: A new epoch begins at so many sequences for each millisecond of the clock: above all that any
#: epoch has given out, also one that nobody knows of any more since the same copy was put back
#: before. Good until 2109, when they would be more than every language's exact integers.
_SEQS_PER_MS: Final = 2**11
#: Where the clock is behind what is known: so far above that. It stands for what the witness has
#: not seen, at a million messages a second for an hour.
_JUMP: Final = 2**32
#: Epochs fit every language's exact integers.
_EPOCH_MAX: Final = 2**53


class Seen(NamedTuple):
    """What the witness says."""

    epoch: int
    last: int


class Witness:
    """The file. A disk that has no room for it does not keep the broker from serving."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Seen | None:
        """Return what was seen; None where there is no such file, or a spoilt one."""
        try:
            found = json.loads(self._path.read_text("ascii"))
            return Seen(int(found["epoch"]), int(found["last"]))
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def write(self, epoch: int, last: int) -> bool:
        """Note how far sequences were given out and committed; tell whether that succeeded."""
        new = self._path.with_name(self._path.name + ".new")
        try:
            handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "w") as file:
                json.dump({"epoch": epoch, "last": last}, file)
                file.flush()
                os.fsync(file.fileno())  # a power cut must not leave a spoilt one
            new.replace(self._path)
            # ... nor an older one under its name: that would look like an old backup.
            sync_folder(self._path.parent)
        except OSError as error:
            log.warning("%s cannot be written: %s", self._path.name, error.strerror)
            return False
        return True


def settle(database: sqlite3.Connection, witness: Witness, last: int) -> tuple[Epoch, int]:
    """Return the epoch of an opened database, and the highest sequence that counts as given out.

    ``last`` is the highest that the database knows of.
    """
    number, first_lost, last_lost, high, witnessed = database.execute(
        "SELECT number, first_lost, last_lost, high, witnessed FROM epoch"
    ).fetchone()
    last = max(last, last_lost, high)
    seen = witness.read()
    put_back = bool(witnessed) if seen is None else seen.epoch != number or seen.last > last
    if put_back:
        # From the first loss of all on: a client of the first epoch may have missed them all.
        first_lost = first_lost or last + 1
        known = max(last, seen.last if seen is not None else 0)
        by_clock = time.time_ns() // 1_000_000 * _SEQS_PER_MS
        last = last_lost = by_clock if by_clock > known else known + _JUMP
        number = 1 + secrets.randbelow(_EPOCH_MAX - 1)
        log.warning(
            "the database is not the latest that was here: it begins a new epoch, and clients are "
            "told that messages may be lost"
        )
    # The witness first: a start that ends between the two must find nothing amiss.
    witnessed_now = witness.write(number, last) or seen is not None
    if put_back or witnessed_now != bool(witnessed):
        database.execute(
            "UPDATE epoch SET number = ?, first_lost = ?, last_lost = ?, witnessed = ?",
            (number, first_lost, last_lost, witnessed_now),
        )
    return Epoch(number, Lost(first_lost, last_lost)), last
