"""On what, and with which versions, something was measured: figures mean little without it."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
from pathlib import Path

import msgpack
import zmq


def surroundings() -> dict[str, str]:
    """Return the machine and the versions, each under the name that a document gives it."""
    return {
        "processor": f"{os.cpu_count()} x {_processor()}",
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "pyzmq": f"{zmq.__version__}, libzmq {zmq.zmq_version()}",
        "SQLite": sqlite3.sqlite_version,
        "msgpack": ".".join(map(str, msgpack.version)),
    }


def _processor() -> str:
    return _found("/proc/cpuinfo", r"model name\s*:\s*(.+)") or platform.machine()


def _memory() -> str:
    kibibytes = _found("/proc/meminfo", r"MemTotal:\s*(\d+) kB")
    return f"{int(kibibytes) / 1_048_576:.0f} GiB" if kibibytes else "unknown"


def _found(file: str, pattern: str) -> str:
    try:
        found = re.search(pattern, Path(file).read_text())
    except OSError:  # no Linux
        return ""
    return found[1].strip() if found else ""
