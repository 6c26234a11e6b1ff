"""What of the kills is proved in one go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Final

from tests.proof.disk.prove import Row
from tests.proof.kills.brokers import kill_brokers
from tests.proof.kills.chain import Kills, kill_stores
from tests.proof.kills.migration import kill_migrations
from tests.proof.part import Part, Show, Size, Work, row

#: Kills anywhere within the migration, for each that falls before a statement.
_WITHIN: Final = 20


def _work(sizes: Mapping[str, int], seed: int, show: Show) -> Iterator[Work]:
    if sizes["cycles"]:
        yield partial(_stores, sizes["cycles"], seed, show)
    if sizes["brokers"]:
        yield partial(_brokers, sizes["brokers"], seed, show)
    if sizes["stride"]:
        yield partial(_migrations, sizes["stride"], seed, show)


def _stores(cycles: int, seed: int, show: Show) -> Row:
    what = "kill -9 of a store"
    return _row(what, kill_stores(cycles, seed, lambda done: show(what, done, cycles)))


def _brokers(cycles: int, seed: int, show: Show) -> Row:
    what = "kill -9 of a broker under load"
    return _row(what, kill_brokers(cycles, seed, lambda done: show(what, done, cycles)))


def _row(what: str, kills: Kills) -> Row:
    told = f"{kills.answered:,} sends answered, {sum(kills.killed.values())} killed at their point"
    return row(
        what,
        f"{kills.cycles} cycles",
        kills.breaches,
        told,
        cycles=kills.cycles,
        killed=dict(kills.killed),
        answered=kills.answered,
        silent=kills.silent,
    )


def _migrations(stride: int, seed: int, show: Show) -> Row:
    what = "kill -9 in a migration"
    within = max(1, _WITHIN // stride)
    done = kill_migrations(stride, within, seed, lambda n, total: show(what, n, total))
    left = ", ".join(f"{number}x schema {version}" for version, number in sorted(done.left.items()))
    how_much = f"{done.killed} kills, {done.statements} statements"
    return row(what, how_much, done.breaches, left, killed=done.killed, left=done.left)


KILLS: Final = Part(
    "kills",
    "Kill stores and brokers by SIGKILL at named points and at any time; judge what is left.",
    {
        "cycles": Size(300, "lives of a store"),
        "brokers": Size(40, "lives of a broker under load"),
        "stride": Size(1, "kill a migration before each n-th statement"),
    },
    _work,
)
