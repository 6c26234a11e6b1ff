"""What the watch does at which level, with levels of the test's own; and what it reads."""

from __future__ import annotations

import logging
import os
import resource
import time
from pathlib import Path

import pytest

from broker.server import resources, watch
from broker.server.resources import Levels, Readings, allowed_memory_bytes
from broker.server.watch import Watch, memory_limit_bytes

PATIENCE_S = 30
MIB = 1_048_576


class Broker:
    """A stand-in that notes what the watch asks of it."""

    def __init__(self, *, memory_max_bytes: int = 100 * MIB) -> None:
        self.heard: list[object] = []
        self.watch = Watch(
            memory_max_bytes=memory_max_bytes,
            refuse=self.heard.append,
            on_spent=lambda: self.heard.append("spent"),
            give_back=lambda: self.heard.append("give back"),
        )

    def at(self, *percents: int, files: int = 1) -> list[object]:
        """Have it see these levels of 100 MiB and 100 files, and return what it asked for."""
        self.heard.clear()
        for percent in percents:
            self.watch.look(Levels(percent * MIB, files), 100)
        return list(self.heard)


@pytest.fixture
def broker() -> Broker:
    return Broker()


def test_below_four_fifths_nothing_happens(broker: Broker) -> None:
    assert broker.at(0, 50, 79, 79, 10) == []


def test_new_work_is_refused_at_80_percent_and_taken_again_below_70(broker: Broker) -> None:
    assert broker.at(80) == [True]
    assert True not in broker.at(85, 80, 94)  # told once
    assert False not in broker.at(79, 70)  # not to and fro
    assert broker.at(69) == [False]
    assert broker.at(69, 79) == []
    assert broker.at(80) == [True]


def test_while_it_refuses_what_is_free_goes_back_to_the_system(broker: Broker) -> None:
    """Else memory that the C library keeps would count as used for ever."""
    broker.at(80)
    assert broker.at(*[75] * 20) == ["give back", "give back"]
    broker.at(10)
    assert broker.at(*[75] * 20) == []


@pytest.mark.parametrize("before", [10, 80])
def test_at_95_percent_the_broker_is_ended_once(broker: Broker, before: int) -> None:
    broker.at(before)
    assert broker.at(95, 96, 300, 95) == ["spent"]


def test_the_log_tells_each_change_once_and_what_is_meant(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    broker.at(80, 81, 82, 60, 60, 95, 99)
    part = "% of the memory (memory_max_bytes, 100 MiB) is in use"
    assert caplog.messages == [
        f"80 {part}: nothing new is stored until it is less",
        f"60 {part}: new messages are stored again",
        f"95 {part}: the broker ends, to begin anew",
    ]


def test_open_files_are_told_of_at_90_percent_and_once_they_are_fewer(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for files in (89, 90, 100, 85, 90, 79, 79, 95):
        assert broker.at(1, files=files) == []
    assert caplog.messages == [
        "90 of 100 files are open: newcomers will wait in vain",
        "79 of 100 files are open: there is room again",
        "95 of 100 files are open: newcomers will wait in vain",
    ]


def test_a_watch_that_runs_sees_the_memory_of_its_own_process() -> None:
    broker = Broker(memory_max_bytes=MIB)  # less than any Python has
    broker.watch.start()
    try:
        deadline = time.monotonic() + PATIENCE_S
        while "spent" not in broker.heard:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert broker.watch.levels.memory_bytes > 10 * MIB
    finally:
        broker.watch.stop()
    assert broker.heard == ["spent"]


def test_where_the_system_does_not_tell_it_says_so_and_does_nothing(
    broker: Broker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> Readings:
        return Readings(Path("/nowhere"))

    monkeypatch.setattr(watch, "Readings", absent)
    broker.watch.start()
    broker.watch.stop()
    assert broker.heard == []
    assert caplog.messages == [
        "this system does not tell how much memory is in use: nobody watches it"
    ]


# --- the readings --------------------------------------------------------------------------------


@pytest.fixture
def readings() -> object:
    return Readings()


def test_a_large_block_is_seen_and_so_is_its_end(readings: Readings) -> None:
    before = readings.read().memory_bytes
    block = bytearray(os.urandom(1) * (64 * MIB))
    during = readings.read().memory_bytes
    del block
    after = readings.read().memory_bytes
    readings.close()
    assert during - before > 60 * MIB
    assert during - after > 60 * MIB


@pytest.mark.parametrize("system", ["new", "old"])
def test_an_open_file_is_counted_and_so_is_its_end(system: str) -> None:
    readings = Readings(Path("/proc/self") if system == "new" else OldProc("/proc/self"))
    before = readings.read().open_files
    with Path(os.devnull).open():
        opened = readings.read().open_files
    closed = readings.read().open_files
    readings.close()
    assert (opened - before, closed - before) == (1, 0)


class OldProc(type(Path())):  # type: ignore[misc]  # the class of this system's paths
    """A folder of a Linux before 6.2: its size is nothing, so that ``fd`` must be listed."""

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        found = super().stat(follow_symlinks=follow_symlinks)
        return os.stat_result([0 if n == 6 else value for n, value in enumerate(found[:10])])


def test_at_the_limit_of_open_files_the_levels_are_still_read() -> None:
    readings = Readings()
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, old[1]))
        with pytest.raises(OSError, match="Too many open files"):
            os.open(os.devnull, os.O_RDONLY)
        levels = readings.read()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, old)
        readings.close()
    assert levels.memory_bytes > MIB
    assert levels.open_files >= 3


# --- how much is allowed -------------------------------------------------------------------------


def machine(root: Path, groups: str, **limits: str) -> int:
    """Write a system's files below ``root`` and return what is allowed there."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for path, text in limits.items():
        file = root / "sys/fs/cgroup" / path.replace("__", "/").replace("_max", ".max")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return allowed_memory_bytes(root)


ALL = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_without_a_control_group_the_machine_is_the_limit(tmp_path: Path) -> None:
    assert allowed_memory_bytes(tmp_path) == ALL


def test_a_control_groups_limit_counts(tmp_path: Path) -> None:
    service = "system.slice__kotak.service__memory_max"
    limits = {service: f"{90 * MIB}\n", "system.slice__memory_max": "max\n"}
    assert machine(tmp_path, "0::/system.slice/kotak.service\n", **limits) == 90 * MIB


def test_the_limit_of_a_group_above_counts_too(tmp_path: Path) -> None:
    limits = {"a__b__memory_max": f"{90 * MIB}", "a__memory_max": f"{80 * MIB}"}
    assert machine(tmp_path, "0::/a/b\n", **limits) == 80 * MIB


def test_a_container_sees_its_limit_at_the_top(tmp_path: Path) -> None:
    assert machine(tmp_path, "0::/not/here\n", memory_max=f"{70 * MIB}") == 70 * MIB


def test_version_1_of_control_groups_is_understood(tmp_path: Path) -> None:
    limits = {"memory__a__memory.limit_in_bytes": f"{60 * MIB}"}
    assert machine(tmp_path, "5:cpu:/a\n4:hugetlb,memory:/a\n0::/\n", **limits) == 60 * MIB


def test_no_limit_in_version_1_is_no_limit(tmp_path: Path) -> None:
    limits = {"memory__memory.limit_in_bytes": f"{2**63 - 4096}"}
    assert machine(tmp_path, "4:memory:/\n", **limits) == ALL


def test_the_setting_goes_before_the_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "allowed_memory_bytes", lambda: 1_000)
    assert memory_limit_bytes(0) == 900
    assert memory_limit_bytes(77) == 77


def test_giving_back_harms_nobody() -> None:
    resources.give_back_memory()
