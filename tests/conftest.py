"""What tests share: a real broker in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.canary_watch import CanaryWatch
from tests.load.broker_process import BrokerProcess


def pytest_configure(config: pytest.Config) -> None:
    """Fail each test that leaves a secret in a log, or in a program's standard error."""
    watch = CanaryWatch()
    watch.install()
    config.pluginmanager.register(watch)


class Broker(NamedTuple):
    """A running broker with the four demo users and nothing else in it."""

    zmq: str
    text: tuple[str, int]
    data: Path
    process: BrokerProcess


@pytest.fixture
def demo_broker(tmp_path: Path) -> Iterator[Broker]:
    """Start a broker for one test, with ``--demo``, in memory, on ports of its own."""
    data = tmp_path / "data"
    with BrokerProcess(data, store="memory:", options=["--demo"]) as process:
        host, _, port = process.doors.text.rpartition(":")
        yield Broker(process.doors.zmq, (host, int(port)), data, process)
