"""When the store is tidied: little, seldom, and never at the price of an answer."""

from __future__ import annotations

import pytest

from broker.core.ports import StoreFailedError, StoreFullError
from broker.core.service import IDLE_MS, TIDY_PAUSE_MS, TIDY_STEP_MS
from tests.core.fakes import FaultyStore, World


class DustyStore(FaultyStore):
    """A store with so many steps of tidying to do."""

    steps_left = 0
    tidied = 0
    tidy_fault: Exception | None = None

    def tidy(self, now_ms: int) -> bool:
        self.tidied += 1
        if self.tidy_fault is not None:
            raise self.tidy_fault
        self.steps_left = max(0, self.steps_left - 1)
        return self.steps_left > 0


@pytest.fixture
def store() -> DustyStore:
    return DustyStore()


@pytest.fixture
def dusty(store: DustyStore) -> World:
    return World(store=store)


def test_a_clean_store_is_looked_at_seldom(dusty: World, store: DustyStore) -> None:
    for _ in range(3):
        assert dusty.service.tidy(dusty.now_ms)
    assert store.tidied == 1
    assert dusty.service.patience_ms == IDLE_MS
    dusty.now_ms += TIDY_PAUSE_MS
    dusty.service.tidy(dusty.now_ms)
    assert store.tidied == 2


def test_while_there_is_something_to_do_steps_have_pauses(dusty: World, store: DustyStore) -> None:
    store.steps_left = 3
    dusty.service.tidy(dusty.now_ms)
    dusty.service.tidy(dusty.now_ms + TIDY_STEP_MS - 1)
    assert store.tidied == 1
    assert dusty.service.patience_ms == TIDY_STEP_MS
    dusty.service.tidy(dusty.now_ms + TIDY_STEP_MS)
    assert store.tidied == 2


def test_a_full_disk_puts_it_off(dusty: World, store: DustyStore) -> None:
    store.tidy_fault = StoreFullError()
    assert dusty.service.tidy(dusty.now_ms)
    assert dusty.service.patience_ms == IDLE_MS


def test_a_store_that_fails_is_reported(dusty: World, store: DustyStore) -> None:
    store.tidy_fault = StoreFailedError()
    assert not dusty.service.tidy(dusty.now_ms)
