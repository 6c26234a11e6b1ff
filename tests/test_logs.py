"""broker.logs: one line an event, nothing secret or forged in it, and never in anybody's way."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker import logs

TIMEOUT_S = 20.0


@pytest.fixture(autouse=True)
def _undo() -> Iterator[None]:
    """Take our handler and hooks away again, whatever the test did."""
    before = (sys.excepthook, threading.excepthook, logging.raiseExceptions)
    root = logging.getLogger()
    level = root.level
    yield
    sys.excepthook, threading.excepthook, logging.raiseExceptions = before
    for handler in [h for h in root.handlers if isinstance(h, logs.LineHandler)]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    logging.getLogger("kotak").setLevel(logging.NOTSET)


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Callable[..., list[str]]]:
    """Configure with the given arguments, log through the callable, return the lines."""
    fd = os.open(tmp_path / "log", os.O_CREAT | os.O_RDWR)

    def run(
        act: Callable[[logging.Logger], object], *, level: str = "info", as_json: bool = False
    ) -> list[str]:
        logs.configure(level, as_json, fd=fd)
        act(logging.getLogger("kotak.router"))
        logs.flush()
        return (tmp_path / "log").read_text().splitlines()

    yield run
    os.close(fd)


Written = Callable[..., list[str]]


def test_a_line_has_time_level_logger_event_and_fields(written: Written) -> None:
    fields = {"reason": "peer gone", "count": 3, "path": "/x", "state": None}
    (line,) = written(lambda log: log.warning("reply dropped", extra={"fields": fields}))
    stamp, rest = line.split(" ", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", stamp)
    assert rest == (
        'WARNING kotak.router reply dropped reason="peer gone" count=3 path=/x state=""'
    )


def test_json_carries_the_same_and_fields_cannot_replace_the_envelope(written: Written) -> None:
    fields = {"count": 3, "level": "forged", "path": Path("/x")}
    (line,) = written(lambda log: log.info("started", extra={"fields": fields}), as_json=True)
    found = json.loads(line)
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "INFO", "logger": "kotak.router", "event": "started", "count": 3, "path": "/x",
    }  # fmt: skip


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("name", ["password", "token", "text", "args"])
def test_a_field_that_is_not_listed_loses_its_value(
    written: Written, name: str, *, as_json: bool
) -> None:
    extra = {"fields": {name: "canary"}}
    (line,) = written(lambda log: log.info("event", extra=extra), as_json=as_json)
    assert "canary" not in line
    assert name in line


@pytest.mark.parametrize("as_json", [False, True])
def test_nothing_from_outside_forges_a_line_or_moves_the_cursor(
    written: Written, *, as_json: bool
) -> None:
    evil = "x\r\n2026 INFO forged\x1b[2J\x85\u2028\u202e\0\ud800"
    lines = written(
        lambda log: log.info("event %s", evil, extra={"fields": {"client": evil}}), as_json=as_json
    )
    assert len(lines) == 1
    assert lines[0].isprintable()


def test_a_quote_in_a_value_cannot_end_it(written: Written) -> None:
    (line,) = written(lambda log: log.info("event", extra={"fields": {"client": 'a" count="9'}}))
    assert line.endswith('client="a\\" count=\\"9"')


@pytest.mark.parametrize("as_json", [False, True])
def test_an_exception_gives_its_type_place_and_system_error_but_not_its_text(
    written: Written, *, as_json: bool
) -> None:
    def act(log: logging.Logger) -> None:
        try:
            Path("/nowhere/canary").read_text()
        except OSError:
            log.exception("cannot read")

    (line,) = written(act, as_json=as_json)
    assert "FileNotFoundError" in line
    assert "ENOENT" in line
    assert "test_logs.py" in line
    assert "canary" not in line


def test_a_thread_that_dies_is_one_line_without_the_exceptions_text(written: Written) -> None:
    def act(log: logging.Logger) -> None:
        del log
        thread = threading.Thread(target=lambda: int("canary"), name="worker-1")
        thread.start()
        thread.join()

    (line,) = written(act)
    assert "uncaught error in a thread thread=worker-1 error=ValueError" in line
    assert "canary" not in line


def test_the_level_counts_for_kotak_and_libraries_are_heard_from_warning(written: Written) -> None:
    def act(log: logging.Logger) -> None:
        log.debug("ours")
        logging.getLogger("asyncio").info("theirs")
        logging.getLogger("asyncio").warning("their warning")

    assert [line.split(" ", 2)[2] for line in written(act, level="debug")] == [
        "kotak.router ours", "asyncio their warning",
    ]  # fmt: skip


def test_configuring_twice_writes_each_line_once(written: Written) -> None:
    written(lambda log: log.info("first"))
    lines = written(lambda log: log.info("second"))
    assert [line.rsplit(" ", 1)[1] for line in lines] == ["first", "second"]


def test_a_long_line_is_cut(written: Written) -> None:
    (line,) = written(lambda log: log.info("x" * 100_000))
    assert len(line) < 5_000


def test_a_wrong_log_call_is_dropped_and_counted(written: Written) -> None:
    assert written(lambda log: log.info("%d", "no number")) == []
    assert logs.dropped() == 1


def test_a_descriptor_that_refuses_lines_stops_nobody_and_is_counted() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    logs.configure("info", False, fd=full)
    for _ in range(3):
        logging.getLogger("kotak.router").info("event")
    logs.flush()
    os.close(full)
    assert logs.dropped() == 3


def test_a_pipe_that_nobody_reads_stops_nobody_and_what_is_lost_is_counted() -> None:
    reader, writer = os.pipe()
    logs.configure("info", False, fd=writer)
    log = logging.getLogger("kotak.router")
    deadline = time.monotonic() + TIMEOUT_S
    while not logs.dropped():
        assert time.monotonic() < deadline
        for _ in range(1_000):
            log.info("event")
    # Reading lets the writing thread go on and end.
    threading.Thread(
        target=lambda: [None for _ in iter(lambda: os.read(reader, 2**20), b"")]
    ).start()
    logs.flush()
    logs.configure("info", False)
    os.close(writer)


def test_a_process_without_a_stderr_does_not_log_into_the_next_file_it_opens(
    tmp_path: Path,
) -> None:
    program = (
        "import logging, sys; from broker import logs; logs.configure('info', False)\n"
        "opened = open(sys.argv[1], 'w'); logging.getLogger('kotak').info('event')\n"
        "logs.flush(); sys.exit(opened.fileno() <= 2)"
    )
    path = tmp_path / "database"
    run = ["bash", "-c", '"$@" 2>&- 0<&-', "bash", sys.executable, "-c", program, str(path)]
    assert subprocess.run(run, check=False, timeout=60).returncode == 0
    assert path.read_text() == ""


def test_the_last_lines_are_written_as_the_process_ends() -> None:
    program = (
        "import logging; from broker import logs; logs.configure('info', False)\n"
        "logging.getLogger('kotak').info('last'); raise ValueError('canary')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60
    )
    last, uncaught = ended.stderr.splitlines()
    assert last.endswith("kotak last")
    assert "uncaught error error=ValueError" in uncaught
    assert "canary" not in ended.stderr
