"""``kotak admin status``, ``depth``, ``drain``, ``reload``: how a broker stands, what it does."""

# ruff: noqa: T201 - what a command prints is its result

from __future__ import annotations

import sys
from argparse import Namespace
from time import sleep
from typing import Final

from broker.admin.administrator import Admin, pages
from broker.admin.printing import (
    Column,
    at_work,
    counted,
    local_time,
    note,
    plain,
    print_fields,
    print_list,
    raw,
    size,
)
from broker.exits import Exit

_NOTHING: Final = "nothing waits to be read"
#: Seconds between two looks at what still waits.
POLL_S: Final = 0.5

_KEPT: Final = {
    "fsync": "on disk before every OK",
    "memory": "in memory when an OK is said",
}
_STATUS: Final = (
    Column("broker", "server"),
    Column("running since", "started_at_ms", local_time),
    Column("messages kept", "durability", lambda word: _KEPT.get(word, raw(word))),
    Column("draining", "draining", lambda on: "yes: nothing new is taken" if on else "no"),
    Column("mailboxes", "mailboxes"),
    Column("waiting", "waiting", lambda count: counted(count, "message")),
    Column("waiting text", "waiting_bytes", size),
    Column("subscriptions", "subscriptions"),
    Column("epoch", "epoch"),
)
_DEPTH: Final = (
    Column("User", "user"),
    Column("Waiting", "waiting", right=True),
    Column("Text", "waiting_bytes", size, right=True),
)


def status(admin: Admin, args: Namespace) -> int:
    """Say how the broker stands."""
    print_fields(admin.request("broker_status", {}), _STATUS, as_json=args.json)
    return Exit.OK


def depth(admin: Admin, args: Namespace) -> int:
    """Tell what waits for ``args.user`` (None: for each who has something, or ``args.all``)."""
    if args.user is not None:
        found = iter([admin.request("mailbox_depth", {"user": args.user})])
    else:
        found = pages(admin, "mailbox_list", "mailboxes")
        if not args.all:
            found = (each for each in found if each["waiting"])
    print_list(found, _DEPTH, as_json=args.json, empty="nothing waits for anybody")
    return Exit.OK


def drain(admin: Admin, args: Namespace) -> int:
    """Have nothing new taken, or with ``args.off`` again; ``args.wait``: until nothing waits."""
    answer = admin.request("broker_drain", {"on": not args.off})
    if args.off:
        print("messages are taken again")
        return Exit.OK
    print("nothing new is taken; kotak admin drain --off ends that")
    if not args.wait:
        print(_waiting(answer["waiting"]))
        return Exit.OK
    try:
        _wait(admin, answer["waiting"])
    except KeyboardInterrupt:
        note("the broker still takes nothing new: kotak admin drain --off ends that")
        raise
    print(_NOTHING)
    return Exit.OK


def _wait(admin: Admin, waiting: int) -> None:
    """Show how many messages wait until none does; at no terminal say so at the beginning."""
    if not sys.stderr.isatty():
        note(_waiting(waiting))
    with at_work(_waiting(waiting), after_s=0.0) as tell:
        while waiting:
            sleep(POLL_S)
            waiting = admin.request("broker_status", {})["waiting"]
            tell(_waiting(waiting))


def _waiting(count: int) -> str:
    return f"still to be read: {counted(count, 'message')}" if count else _NOTHING


def reload(admin: Admin, _: Namespace) -> int:
    """Have certificate and enrolled keys read anew, as SIGHUP does."""
    names = admin.request("broker_reload", {})["reloaded"]
    for name in names:
        print(f"{plain(name)} was read anew")
    if not names:
        print("there was nothing to read anew: the broker has no certificate and no list of keys")
    return Exit.OK
