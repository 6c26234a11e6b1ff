"""Starting on a damaged folder, and saying what came of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from broker.core.ports import StoreFailedError, StoreUnusableError
from tests.proof.disk.course import USERS
from tests.proof.disk.store_calls import StoreCalls
from tests.proof.rot.folders import Content, read_content

_PAGE = 500


class Outcome(StrEnum):
    """What a start may lead to; the last three must not be.

    ``UNFINISHED``: what is gone is what a power cut may leave: the log's last commit, or a log that
    is shorter. Nothing in the folder tells the two apart.
    """

    EXACT = "exact"
    REFUSED = "refused"
    STOPPED = "stopped when it was read"
    ANNOUNCED = "loss announced"
    CHANGED = "a row's value changed unnoticed"
    UNFINISHED = "taken for an unfinished end"
    LOST = "LOST IN SILENCE"
    INVENTED = "ROWS THAT WERE NOT THERE"
    FAULT = "FAULT"


FORBIDDEN = frozenset({Outcome.LOST, Outcome.INVENTED, Outcome.FAULT})


class Found(NamedTuple):
    """The outcome, and what there is to say of it: a refusal's sentence, or what is gone."""

    outcome: Outcome
    told: str = ""


def start(folder: Path, before: Content) -> Found:
    """Open the store on the folder, read everything that waits, and compare."""
    try:
        store = StoreCalls(folder)
    except StoreUnusableError as error:
        return Found(Outcome.REFUSED, str(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, the broker would end in a traceback
        return Found(Outcome.FAULT, repr(error))
    with closing(store):
        try:
            after = read_content(store)
            known = {user for user, *_ in after.rows["accounts"].values()}
            for user in known.intersection(USERS):
                _drain(store, user)
        except (StoreFailedError, sqlite3.Error) as error:
            return Found(Outcome.STOPPED, str(error))
        except Exception as error:  # noqa: BLE001 - as above
            return Found(Outcome.FAULT, repr(error))
        return compare(before, after)


def _drain(store: StoreCalls, user: str) -> None:
    """Read as the broker does, which may find what a look at the rows does not."""
    while True:
        with store.batch():
            messages = store.read(user, _PAGE)
        if not messages:
            return
        with store.batch():
            store.acknowledge(user, messages[-1].seq or 0)


def compare(before: Content, after: Content) -> Found:
    """Say what is missing, too much, or other than it was."""
    first, last = after.lost
    announced = after.epoch != before.epoch
    changed = ""
    for table, rows in before.rows.items():
        now = after.rows[table]
        gone = rows.keys() - now.keys()
        if any(not (announced and table != "accounts" and _told(table, key, first, last))
               for key in gone):  # fmt: skip
            return Found(Outcome.LOST, f"{len(gone)} of {len(rows)} {table}: {sorted(gone)[:5]}")
        if now.keys() - rows.keys():
            return Found(Outcome.INVENTED, f"{table}: {sorted(now.keys() - rows.keys())[:5]}")
        other = [key for key in now if now[key] != rows[key]]
        # A cursor that went back with the loss that was announced is part of it.
        if other and not (announced and table == "readers"):
            changed = changed or f"{table}: {other[:3]}"
    if changed:
        return Found(Outcome.CHANGED, changed)
    return Found(Outcome.ANNOUNCED if announced else Outcome.EXACT)


def _told(table: str, key: int, first: int, last: int) -> bool:
    """Tell whether a client hears of it: acknowledgements count as lost with every new epoch."""
    return table == "readers" or first <= key <= last
