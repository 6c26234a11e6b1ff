"""A broker in the test's own process, on ports of its own, with hashes that cost nothing."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

from broker.config import Address, Config


class PlainHasher:
    """The `Hasher` port without its cost."""

    def hash(self, password: str) -> str:
        return f"plain:{password}"

    def verify(self, password_hash: str, password: str) -> bool:
        return password_hash == f"plain:{password}"

    def needs_rehash(self, password_hash: str) -> bool:
        return False

    def is_hash(self, password_hash: str) -> bool:
        return password_hash.startswith("plain:")


def any_ports(data: Path, **settings: object) -> Config:
    here = Address("127.0.0.1", 0)
    doors = {"zmq": "tcp://127.0.0.1:0", "text": here, "http": here}
    return Config(data=data, demo=True, **{**doors, **settings})  # type: ignore[arg-type]


def held() -> tuple[int, list[str]]:
    """Count our open descriptors, and name our threads."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir())), sorted(t.name for t in threading.enumerate())
