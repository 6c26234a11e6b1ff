"""The administrator's way in: through the running broker, or into the folder of a stopped one.

A running broker writes its ZeroMQ address and a token of its own into the data folder, for its
owner's eyes only: who may read the folder may administer.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from broker.audit import AuditLog
from broker.config import Config
from broker.core.ports import StoreUnusableError
from broker.core.service import Finished, Service
from broker.exits import Exit, ExitError
from broker.passwords import Argon2Hasher
from broker.server.assembly import WallClock, make_service, make_store, make_token
from broker.server.operations import StoppedOperations
from broker.stores.folder import ADMIN_FILE, DataFolder, FolderHeldError, was_used
from broker.wire.envelope import decode_reply, encode_request, encoder
from clients import Client
from clients.curve_keys import Curve

log = logging.getLogger("kotak.server")

#: Milliseconds that one of the administrator's commands may take.
_TIMEOUT_MS = 10_000


class OfflineAdmin:
    """Runs the administrator's commands on a store that no broker holds."""

    running = False

    def __init__(self, service: Service) -> None:
        self._service = service
        self._encode = encoder()
        self._clock_ms = WallClock()
        self._token = make_token()
        service.grant_admin(self._token)

    def request(
        self, command: str, args: Mapping[str, Any], *, timeout_ms: int | None = None
    ) -> dict[str, Any]:
        """Run one command to its end, however long that takes. Errors: `WireError`."""
        del timeout_ms
        frame = encode_request(self._encode, 1, command, self._token, args)
        turn = self._service.turn([(b"", [frame])], [], self._clock_ms())
        if turn.jobs:
            finished = [Finished(job, job.deferred.work()) for job in turn.jobs]
            turn = self._service.turn([], finished, self._clock_ms())
        reply = decode_reply(turn.replies[b""][0])
        if reply.error is not None:
            raise reply.error
        result: dict[str, Any] = reply.result
        return result


class OnlineAdmin:
    """Runs the administrator's commands through a running broker."""

    running = True

    def __init__(self, client: Client) -> None:
        self._client = client

    def request(
        self, command: str, args: Mapping[str, Any], *, timeout_ms: int | None = None
    ) -> dict[str, Any]:
        """Run one command. Errors: `WireError`, also where the broker does not answer."""
        return self._client.request(command, args, timeout_ms=timeout_ms)


@contextmanager
def open_admin(config: Config, *, create: bool) -> Iterator[OfflineAdmin | OnlineAdmin]:
    """Open the accounts of a data folder; only with ``create`` is one made where there is none.

    Errors: `ExitError`.
    """
    try:
        require_ours(config.data, create=create)
        folder = DataFolder(config.data)
    except FolderHeldError:
        address, token, curve = _read(config.data / ADMIN_FILE)
        with Client(address, token=token, timeout_ms=_TIMEOUT_MS, curve=curve) as client:
            yield OnlineAdmin(client)
        return
    except StoreUnusableError as error:
        raise ExitError(Exit.DATA_FOLDER, str(error)) from error
    with folder, _open_offline(config, folder, create=create) as admin:
        yield admin


def require_ours(path: Path, *, create: bool) -> None:
    """Refuse a folder that no broker ever used, before anything is made in it."""
    if was_used(path):
        return
    if not create:
        raise _no_accounts(path)
    try:
        occupied = path.is_dir() and any(path.iterdir())
    except OSError:
        occupied = False  # the folder itself will say what is wrong with it
    if occupied:
        raise ExitError(
            Exit.DATA_FOLDER,
            f"{path} holds files, but none of a broker: choose a new or an empty one with --data",
        )


@contextmanager
def _open_offline(config: Config, folder: DataFolder, *, create: bool) -> Iterator[OfflineAdmin]:
    if config.store == "memory:":
        raise ExitError(
            Exit.USAGE,
            "a broker with --store memory: has accounts only while it runs: start it",
        )
    # A lock alone: of a broker that kept its messages in memory, or of one that never came up.
    if config.store == "sqlite:" and not create and not folder.database.exists():
        raise _no_accounts(folder.path)
    try:
        store = make_store(config, folder)
    except StoreUnusableError as error:
        raise ExitError(Exit.DATA_FOLDER, str(error)) from error
    audit = AuditLog(folder.audit_file)
    try:
        operations = StoppedOperations(
            folder.database if config.store == "sqlite:" else config.store
        )
        service = make_service(config, store, Argon2Hasher(), audit, operations=operations)
        yield OfflineAdmin(service)
    finally:
        audit.close()
        store.close()


def _no_accounts(path: Path) -> ExitError:
    return ExitError(
        Exit.DATA_FOLDER,
        f"there are no accounts in {path}: give the broker's folder with --data, "
        "or begin one with 'kotak user add'",
    )


def publish(folder: DataFolder, address: str, token: str, curve: Curve | None = None) -> None:
    """Write down how to administer the broker that holds this folder; ``curve`` where it encrypts.

    A full disk does not keep it from serving: then ``kotak user`` waits for the next start.
    """
    withdraw(folder)
    try:
        handle = os.open(folder.admin_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            json.dump({"zmq": address, "token": token, "curve": curve and asdict(curve)}, file)
    except OSError as error:
        log.warning("kotak user cannot reach this broker: %s: %s", ADMIN_FILE, error.strerror)
        withdraw(folder)


def withdraw(folder: DataFolder) -> None:
    """Remove what `publish` wrote, or what a broker that was killed left behind."""
    folder.admin_file.unlink(missing_ok=True)


def _read(path: Path) -> tuple[str, str, Curve | None]:
    try:
        found = json.loads(path.read_text())
        curve = found.get("curve")
        return str(found["zmq"]), str(found["token"]), Curve(**curve) if curve else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ExitError(
            Exit.UNREACHABLE,
            f"a broker holds {path.parent}, but {path.name} in it cannot be read: "
            "it is starting or stopping, or runs as another user",
        ) from error
