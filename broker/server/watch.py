"""A look at memory and open files, again and again: what strangers can fill, and nobody else sees.

libzmq gathers a message of several frames before it hands over any of it, so a peer that never ends
one takes memory without limit, and the broker's own code sees nothing of it. Hence: near the limit
whatever stores something new is refused, while reading and acknowledging go on; at the limit the
broker ends in good order, and its service manager starts it again. What was answered is on disk.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from broker.server.resources import (
    Levels,
    Readings,
    allowed_memory_bytes,
    give_back_memory,
    open_files_max,
)

log = logging.getLogger("kotak.server")

#: Of what the machine or its control group allows, where the configuration names no limit: above
#: it the kernel begins to end processes.
_SHARE_PERCENT: Final = 90
#: Percent of the limit at which new work is refused, is taken again, and the broker ends.
_CLOSE_PERCENT: Final = 80
_OPEN_PERCENT: Final = 70
_END_PERCENT: Final = 95
#: Percent of the open files that are told of; and below which they may be told of again.
_FILES_PERCENT: Final = 90
_FILES_CALM_PERCENT: Final = 80
#: Seconds between looks: a peer on this machine fills 100 MB meanwhile, and a look costs 10 us.
_LOOK_S: Final = 0.1
#: Looks between two attempts to give memory back, which takes milliseconds where there is much.
_GIVE_BACK_LOOKS: Final = 10

_MIB: Final = 1_048_576


def memory_limit_bytes(setting: int) -> int:
    """Return what the broker may take: the setting ``memory_max_bytes``, or a share where it is 0.

    The share is nine tenths of what the control group or the machine has.
    """
    return setting or allowed_memory_bytes() * _SHARE_PERCENT // 100


class Watch:
    """Looks at the levels in a thread: `start` it, `stop` it.

    ``refuse`` is told to refuse new work (True) and to take it again (False); ``on_spent`` is
    called once, when the limit is reached. Both come from the watching thread.
    """

    def __init__(
        self,
        *,
        memory_max_bytes: int,
        refuse: Callable[[bool], None],
        on_spent: Callable[[], None],
        give_back: Callable[[], None] = give_back_memory,
    ) -> None:
        self._memory_max = memory_max_bytes
        self._refuse = refuse
        self._on_spent = on_spent
        self._give_back = give_back
        self._refusing = self._crowded = self._spent = False
        self._looks = 0
        self._readings: Readings | None = None
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        #: What was read last, for the metrics page.
        self.levels = Levels(0, 0)

    def start(self) -> None:
        """Look from now on; where the system does not tell, say so once and do nothing."""
        try:
            self._readings = Readings()
            self.levels = self._readings.read()
        except (OSError, ValueError, IndexError):
            log.warning("this system does not tell how much memory is in use: nobody watches it")
            return
        self._thread = threading.Thread(target=self._live, name="kotak-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
        if self._readings is not None:
            self._readings.close()
            self._readings = None

    def _live(self) -> None:
        assert self._readings is not None
        while not self._ending.wait(_LOOK_S):
            with suppress(OSError):  # the next look may be luckier
                self.look(self._readings.read(), open_files_max())

    def look(self, levels: Levels, files_max: int) -> None:
        """Act on what was read."""
        self.levels = levels
        self._look_at_memory(levels.memory_bytes * 100 // self._memory_max)
        self._look_at_files(levels.open_files, files_max)

    def _look_at_memory(self, percent: int) -> None:
        if percent >= _END_PERCENT:
            if not self._spent:
                self._spent = True
                log.critical("%s: the broker ends, to begin anew", self._told(percent))
                self._on_spent()
        elif percent >= _CLOSE_PERCENT and not self._refusing:
            self._refusing = True
            log.error("%s: nothing new is stored until it is less", self._told(percent))
            self._refuse(True)
        elif self._refusing and percent < _OPEN_PERCENT:
            self._refusing = False
            log.warning("%s: new messages are stored again", self._told(percent))
            self._refuse(False)
        elif self._refusing:
            self._looks += 1
            if self._looks % _GIVE_BACK_LOOKS == 0:
                # What was freed may stay with the C library, and would be counted for ever.
                self._give_back()

    def _told(self, percent: int) -> str:
        limit = self._memory_max // _MIB
        return f"{percent} % of the memory (memory_max_bytes, {limit} MiB) is in use"

    def _look_at_files(self, count: int, most: int) -> None:
        if count * 100 >= most * _FILES_PERCENT:
            if not self._crowded:
                self._crowded = True
                log.error("%d of %d files are open: newcomers will wait in vain", count, most)
        elif self._crowded and count * 100 < most * _FILES_CALM_PERCENT:
            self._crowded = False
            log.warning("%d of %d files are open: there is room again", count, most)
