"""Addresses to listen on: the sentence where one cannot be had, and a look before anything is made.

Source of the errors: errno of bind(2), and of libzmq, which has some of its own.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from contextlib import suppress
from typing import Final

import zmq

from broker.config import Address, Config
from broker.exits import Exit, ExitError
from broker.setting_kinds import endpoint_address
from clients.curve_keys import Curve

log = logging.getLogger("kotak.server")

#: What the errno of a refused bind means for the person who chose the address.
_HINTS: Final = {
    errno.EADDRINUSE: "Another program is using it",
    errno.EADDRNOTAVAIL: "This machine has no such address",
    errno.ENODEV: "This machine has no such address",  # libzmq's word for it
    errno.EACCES: "Ports below 1024 need rights of their own",
}


def refused_address(door: str, wanted: object, error: OSError | zmq.ZMQError) -> ExitError:
    """Return the end of a program whose ``door`` (a setting's name) cannot open at ``wanted``."""
    number = error.errno or 0
    if isinstance(error, socket.gaierror):
        reason, hint = error.strerror, "The host is not known here"
    else:
        # Not the error's own text: asyncio's and zmq's repeat the address.
        reason, hint = os.strerror(number), _HINTS.get(number, "It cannot be listened on")
    return ExitError(
        Exit.ADDRESS_TAKEN,
        f"the {door} door cannot open at {wanted}: {reason}. {hint}; "
        f"choose another address with --{door} (port 0 picks a free one)",
    )


def require_encrypted(config: Config, *doors: str) -> None:
    """Refuse ``doors`` that expose what they carry, unless the configuration names that risk.

    Errors: `ExitError`.
    """
    exposures = config.exposures(doors)
    if exposures and not config.insecure_public:
        raise ExitError(
            Exit.USAGE, f"{'; '.join(exposures)}, or accept the risk with --insecure-public"
        )
    for sentence in exposures:
        log.warning("%s", sentence)


def require_encrypted_way(config: Config, broker_address: str, curve: Curve | None) -> None:
    """As `require_encrypted`, for a gateway's way to a broker on another machine."""
    if curve is not None or endpoint_address(broker_address).is_loopback:
        return
    sentence = (
        f"the broker at {broker_address} is on another machine, and the way there is not "
        "encrypted: give its public key with --curve"
    )
    if not config.insecure_public:
        raise ExitError(Exit.USAGE, f"{sentence}, or accept the risk with --insecure-public")
    log.warning("%s", sentence)


def require_free(config: Config) -> None:
    """Look whether the doors could open, before anything is made for a broker that cannot run.

    A look and no more: what it cannot tell, or what changes afterwards, the door itself reports.
    Errors: `ExitError`.
    """
    for door, address, wanted in (
        ("zmq", endpoint_address(config.zmq), config.zmq),
        ("text", config.text, config.text),
        ("http", config.http, config.http),
    ):
        if address is None or address.port == 0:
            continue
        try:
            _try_to_bind(address)
        except OSError as error:
            raise refused_address(door, wanted, error) from error


def _try_to_bind(address: Address) -> None:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # An unknown host may be a name that only the door understands, as libzmq's * and eth0.
    with socket.socket(family, socket.SOCK_STREAM) as looking, suppress(socket.gaierror):
        looking.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the doors do
        looking.bind(address)
