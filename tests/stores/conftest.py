"""The engine under test, one run of the contract for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.core.ports import Store
from broker.stores import sqlite_ballast, sqlite_checkpoint
from tests.stores import redis_server
from tests.stores.engines import ENGINES, Engine, marks_of
from tests.stores.steps import Reopen


@pytest.fixture(autouse=True)
def short_wal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests open and close; writing 32 MiB each time is all that they would do."""
    monkeypatch.setattr(sqlite_ballast, "BALLAST_BYTES", 4_096)
    monkeypatch.setattr(sqlite_checkpoint, "WAL_BYTES", 4_096)


@pytest.fixture(scope="session", autouse=True)
def stopped_servers() -> Iterator[None]:
    """What the engines of this run started ends with it."""
    yield
    redis_server.stop_shared()


@pytest.fixture(params=[pytest.param(name, marks=marks_of(name)) for name in ENGINES])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    engine = ENGINES[request.param](tmp_path)
    yield engine
    engine.close()


@pytest.fixture
def store(engine: Engine) -> Store:
    return engine.open()


@pytest.fixture
def reopen(engine: Engine) -> Reopen:
    return engine.reopen


@pytest.fixture
def ids_over_all(engine: Engine) -> None:
    """For tests of ids that are known whatever happens to the mailbox that they were used for."""
    if engine.ids_per_mailbox:
        pytest.skip("ids are remembered in the recipient's mailbox, in its slot, and go with it")
