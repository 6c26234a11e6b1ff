"""Logging: one line an event, safe to read in a terminal, and never in the broker's way.

Any module logs with the standard library alone::

    log = logging.getLogger("kotak.router")
    log.warning("reply dropped", extra={"fields": {"reason": "peer gone", "count": 3}})

which becomes ``2026-11-23T10:00:00.123Z WARNING kotak.router reply dropped reason="peer gone"
count=3``, or one JSON object. The event's text is a constant; what varies goes into ``fields``,
whose names must stand in `FIELDS`: passwords, tokens and message texts have no name there, so they
cannot be logged. Of an exception, its type, place and system error are logged, not its text.

Lines are written by a thread of their own. Where stderr is closed, full or not read, lines are
dropped and counted (`dropped`), and the broker goes on.
"""

from __future__ import annotations

import atexit
import errno
import json as jsonlib
import logging
import os
import queue
import sys
import threading
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any, Final

#: Every field that may be logged. A name that is missing here is written without its value.
FIELDS: Final = frozenset(
    {
        "address", "bytes", "client", "code", "command", "connections", "count", "data", "door",
        "durability", "duration_ms", "engine", "errno", "error", "exit", "kind", "limit",
        "mailboxes", "messages", "nofile", "path", "pid", "protocol", "reason", "seq", "sessions",
        "setting", "signal", "state", "thread", "user", "users", "version", "workers",
    }
)  # fmt: skip

#: Lines waiting to be written: some seconds of a noisy log, a few MiB at most.
_LINES_MAX: Final = 10_000
#: One line; the rest of a longer one is cut.
_LINE_CHARS_MAX: Final = 4_096
#: Frames of a traceback, from the fault upwards.
_FRAMES_MAX: Final = 12
#: What the end of the process may spend on the last lines.
_FLUSH_S: Final = 0.5

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def configure(level: str, json: bool, *, fd: int = 2) -> None:  # noqa: FBT001 - as in Config: log_json
    """Send all logging of this process to ``fd``; a second call replaces the first.

    ``level``: debug, info, warning or error, for ``kotak.*``; libraries are heard from warning on.
    """
    _occupy_standard_fds()
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h, LineHandler)]:
        root.removeHandler(old)
        old.close()
    handler = LineHandler(fd)
    handler.setFormatter(JsonFormatter() if json else TextFormatter())
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("kotak").setLevel(level.upper())
    logging.raiseExceptions = False
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


def dropped() -> int:
    """Return how many lines were lost since `configure`, for the metrics page."""
    return sum(h.dropped for h in logging.getLogger().handlers if isinstance(h, LineHandler))


def flush() -> None:
    """Wait (0.5 s at most) until the lines so far are written; call it before ``os._exit``."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LineHandler):
            handler.flush()


def _occupy_standard_fds() -> None:
    """Open /dev/null on 0, 1 and 2 where they are closed.

    Otherwise the next file opened takes the number 2, and the log goes into the database.
    """
    fd = os.open(os.devnull, os.O_RDWR)
    while fd <= 2:
        fd = os.dup(fd)
    os.close(fd)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        logging.getLogger("kotak").critical("uncaught error", exc_info=(kind, error, trace))
        flush()


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and args.exc_type is not SystemExit:
        name = args.thread.name if args.thread else "?"
        logging.getLogger("kotak").critical(
            "uncaught error in a thread",
            extra={"fields": {"thread": name}},
            exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
        )


class LineHandler(logging.Handler):
    """Formats in the caller's thread, writes in its own; full means dropped, not waited for."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._lines: queue.Queue[bytes | None] = queue.Queue(_LINES_MAX)
        self._unwritable = 0  # counted by the writing thread alone
        self._overflowed = 0  # counted under the handler's lock, by whoever logs
        self._thread = threading.Thread(target=self._write_all, name="kotak-log", daemon=True)
        self._thread.start()
        atexit.register(self.flush)

    @property
    def dropped(self) -> int:
        """Lines lost: for want of room, or because the descriptor refused them."""
        return self._unwritable + self._overflowed

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)[:_LINE_CHARS_MAX] + "\n"
            self._lines.put_nowait(line.encode(errors="backslashreplace"))
        except Exception:  # noqa: BLE001 - a bad log call or a full queue must not stop its caller
            self._overflowed += 1

    def flush(self) -> None:
        deadline = time.monotonic() + _FLUSH_S
        while self._lines.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.001)

    def close(self) -> None:
        self.flush()
        atexit.unregister(self.flush)
        try:
            self._lines.put_nowait(None)
        except queue.Full:
            pass  # the thread hangs in a write and is a daemon: it dies with the process
        else:
            self._thread.join(_FLUSH_S)
        super().close()

    def _write_all(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                while line:
                    line = line[os.write(self._fd, line) :]
            except OSError:
                self._unwritable += 1
            self._lines.task_done()
        self._lines.task_done()


class TextFormatter(logging.Formatter):
    """``TIME LEVEL LOGGER event text key=value``: for people and grep."""

    def format(self, record: logging.LogRecord) -> str:
        head = (_time(record), record.levelname, record.name, escape(_event(record)))
        pairs = (f"{escape(key)}={_quoted(value)}" for key, value in _fields(record).items())
        return " ".join((*head, *pairs))


class JsonFormatter(logging.Formatter):
    """One JSON object: ``time``, ``level``, ``logger``, ``event`` and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "event": _event(record),
        }
        return jsonlib.dumps({**_fields(record), **line}, default=str)


def escape(text: str) -> str:
    """Replace whatever a terminal would obey or a reader not see: control, bidi, line ends."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _time(record: logging.LogRecord) -> str:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{stamp}.{int(record.msecs):03d}Z"


def _event(record: logging.LogRecord) -> str:
    return record.getMessage()


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    given = getattr(record, "fields", {})
    found = {
        key: (value if isinstance(value, int | float | str | None) else str(value))
        if key in FIELDS
        else "(not in logs.FIELDS)"
        for key, value in given.items()
    }
    if record.exc_info and record.exc_info[0]:
        found |= _failure(record.exc_info)
    return found


def _failure(info: _ExcInfo) -> dict[str, Any]:
    """Describe an exception without its text, which may quote what a user wrote."""
    kind, error, trace = info
    found: dict[str, Any] = {"error": kind.__name__}
    if isinstance(error, OSError) and error.errno is not None:
        found["errno"] = errno.errorcode.get(error.errno, error.errno)
    if name := getattr(error, "sqlite_errorname", None):
        found["code"] = str(name)
    frames = traceback.extract_tb(trace)[-_FRAMES_MAX:]
    places = [f"{Path(f.filename).name}:{f.lineno}:{f.name}" for f in reversed(frames)]
    return found | {"at": " < ".join(places)}


def _quoted(value: object) -> str:
    text = escape("" if value is None else str(value))
    plain = text and not any(c in ' "=' for c in text)
    return text if plain else '"' + text.replace('"', '\\"') + '"'
