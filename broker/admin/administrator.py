"""Who carries out an administrator's commands: a running broker, or a stopped one's store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol


class Admin(Protocol):
    """Carries out commands of PROTOCOL, "Commands" and "Administration".

    ``running`` tells whether that is a broker that runs. Raises `WireError`, also where there is no
    answer within ``timeout_ms`` (None: some seconds).
    """

    @property
    def running(self) -> bool: ...

    def request(
        self, command: str, args: Mapping[str, Any], *, timeout_ms: int | None = None
    ) -> dict[str, Any]: ...


def pages(admin: Admin, command: str, key: str) -> Iterator[dict[str, Any]]:
    """Return what a command lists under ``key``, in order of user, page after page."""
    args: dict[str, str] = {}
    while True:
        page = admin.request(command, args)
        yield from page[key]
        if not page["more"] or not page[key]:
            return
        args = {"after": page[key][-1]["user"]}
