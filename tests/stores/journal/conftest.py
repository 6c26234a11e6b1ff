"""A store with a journal, in a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.stores.sqlite import SqliteStore
from tests.stores.sqlite_steps import open_at
from tests.stores.steps import with_users


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir(mode=0o700)
    return tmp_path / "data" / "kotak.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = with_users(open_at(path), "ann", "bob", "eve")
    yield store
    store.close()
