"""Who may use a client: the process and the thread that made it.

After ``os.fork`` libzmq's I/O threads are gone in the child: sends vanish without an error. And
a ZeroMQ socket used by two threads at once crashes in C. Both are refused here, cheaply.
"""

from __future__ import annotations

import os
from threading import get_ident

from clients.errors import ForkedProcess, WrongThread


class _Forks:
    """How many forks lie between this process and the one that imported the module."""

    count = 0

    @classmethod
    def in_child(cls) -> None:
        cls.count += 1


# A counter, not os.getpid(): an attribute is read for each call, and a pid is a system call.
os.register_at_fork(after_in_child=_Forks.in_child)


class Owner:
    """The process and thread of its making. `check` costs 0.1 us."""

    __slots__ = ("_forks", "_thread")

    def __init__(self) -> None:
        self._forks = _Forks.count
        self._thread = get_ident()

    @property
    def forked(self) -> bool:
        """True in a child process that was forked since."""
        return self._forks != _Forks.count

    def check(self) -> None:
        """Raise `ForkedProcess` or `WrongThread` where the caller may not use the client."""
        if self._forks != _Forks.count:
            raise ForkedProcess(
                "this client was made before os.fork and cannot be used in the child: create "
                "clients after the fork, or start processes with multiprocessing's 'spawn'"
            )
        if self._thread != get_ident():
            raise WrongThread(
                "this client belongs to the thread that made it: make one client for each thread"
            )
