"""What tests share: a real broker in a process of its own."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager
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
    # A shell starts what it puts in the background without Ctrl-C, and so would we our brokers.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape half characters that a test has logged: a worker cannot tell of them."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report


class Broker(NamedTuple):
    """A running broker with the four demo users and nothing else in it."""

    zmq: str
    text: tuple[str, int]
    data: Path
    process: BrokerProcess


@contextmanager
def demo(folder: Path) -> Iterator[Broker]:
    """Start a broker with ``--demo``, in memory, on ports of its own; its data is in ``folder``."""
    data = folder / "data"
    with BrokerProcess(data, store="memory:", options=["--demo"]) as process:
        host, _, port = process.doors.text.rpartition(":")
        yield Broker(process.doors.zmq, (host, int(port)), data, process)


@pytest.fixture
def demo_broker(tmp_path: Path) -> Iterator[Broker]:
    """Start such a broker for one test."""
    with demo(tmp_path) as broker:
        yield broker
