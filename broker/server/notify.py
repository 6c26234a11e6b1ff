"""Telling the service manager how far the broker is: one datagram (systemd's sd_notify)."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from typing import Final

log = logging.getLogger("kotak.server")

READY: Final = "READY=1"
RELOADING: Final = "RELOADING=1"
STOPPING: Final = "STOPPING=1"


def notify(state: str, environ: Mapping[str, str] = os.environ) -> None:
    """Send ``state`` to the socket that ``NOTIFY_SOCKET`` names; nothing where it names none.

    A manager that does not listen keeps nobody from serving: that is told in the log.
    """
    address = environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # Linux's abstract names begin with a NUL
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.setblocking(False)
            manager.sendto(state.encode(), address)
    except OSError:
        log.warning("the service manager was not told: %s", state, exc_info=True)
