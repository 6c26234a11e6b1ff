"""Every command of the protocol with canaries in it: as it is meant, and as it is not."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from argon2 import PasswordHasher

from broker.wire.commands import PARSERS
from broker.wire.envelope import encode_request, encoder
from broker.wire.limits import FRAME_BYTES_MAX
from tests.canaries import Canaries, Kind

#: What a field's canary is; in any other field it is a password that was typed in the wrong place.
KINDS: Final[Mapping[str, Kind]] = {
    "text": Kind.BODY,
    "password_hash": Kind.HASH,
    "key": Kind.KEY,
}
#: Fields that are stored as they come, and are no secrets: only what is refused is tried in them.
_STORED: Final = {"name", "client", "id", "device"}
_TIMES_TOO_MANY: Final = 2_100
_CHEAP_HASHER: Final = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


class Asked(NamedTuple):
    """One request. ``who``: whose token it takes: a user, ``admin``, or nobody (empty)."""

    command: str
    who: str
    args: dict[str, Any]


def meant(canaries: Canaries, people: Mapping[str, str], door: str) -> Iterator[Asked]:
    """Yield each command as it is meant. ``people``: the passwords of siti and budi.

    Errors: `AssertionError` where the protocol has a command that is not among them.
    """
    asked = set()
    for group in (_of_accounts, _of_mail, _of_rooms, _of_the_administrator, _at_the_end):
        for each in group(canaries, people, door):
            asked.add(each.command)
            yield each
    assert asked >= set(PARSERS), f"add these here: {set(PARSERS) - asked}"


_People = Mapping[str, str]


def _of_accounts(canaries: Canaries, people: _People, door: str) -> Iterator[Asked]:
    def secret(name: str) -> str:
        return canaries.make(Kind.PASSWORD, f"{name}, {door}")

    yield Asked("hello", "", {"version": 1, "client": "canary"})
    yield Asked("login", "", {"user": "siti", "password": people["siti"]})
    yield Asked("login", "", {"user": "budi", "password": people["budi"], "device": "pad"})
    yield Asked("ping", "siti", {})
    yield Asked("register", "", {"user": f"new-{door}", "password": secret("register")})
    yield Asked("register", "", {"user": "siti", "password": secret("register a second time")})
    yield Asked("login", "", {"user": "siti", "password": secret("wrong password")})
    yield Asked("login", "", {"user": f"nobody-{door}", "password": secret("unknown user")})
    new = secret("passwd")
    yield Asked("passwd", "siti", {"password": people["siti"], "new_password": new})
    yield Asked("passwd", "siti", {"password": new, "new_password": people["siti"]})
    yield Asked(
        "passwd", "siti", {"password": secret("wrong old"), "new_password": secret("not taken")}
    )


def _of_mail(canaries: Canaries, _: _People, door: str) -> Iterator[Asked]:
    body = canaries.make(Kind.BODY, f"chat, {door}")
    message = {"to": "budi", "text": body, "id": secrets.token_hex(8)}
    yield Asked("chat", "siti", message)
    yield Asked("chat", "siti", message)
    yield Asked("chat", "siti", {**message, "text": canaries.make(Kind.BODY, "a conflict")})
    lost = canaries.make(Kind.BODY, f"chat to nobody, {door}")
    yield Asked("chat", "siti", {"to": "nobody", "text": lost, "id": secrets.token_hex(8)})
    yield Asked("chat", "siti", {**message, "id": secrets.token_hex(8), "ttl_ms": 60_000})
    yield Asked("history", "siti", {"of": "sent"})
    yield Asked("status", "siti", {"to": "budi", "seq": 1})
    yield Asked("kotakmasuk", "budi", {})
    yield Asked("subscribe", "budi", {"window": 10})
    yield Asked("ack", "budi", {"seq": 2})
    yield Asked("unsubscribe", "budi", {})
    yield Asked("user_on", "budi", {"detail": True})
    yield Asked("block", "budi", {"user": "siti"})
    blocked = canaries.make(Kind.BODY, f"chat of who is blocked, {door}")
    yield Asked("chat", "siti", {"to": "budi", "text": blocked, "id": secrets.token_hex(8)})
    yield Asked("blocks", "budi", {})
    yield Asked("unblock", "budi", {"user": "siti"})


def _of_rooms(canaries: Canaries, _: _People, door: str) -> Iterator[Asked]:
    room = f"#{door}"
    said = canaries.make(Kind.BODY, f"said in a room, {door}")
    yield Asked("room_create", "siti", {"room": room, "history": True})
    yield Asked("room_invite", "siti", {"room": room, "user": "budi"})
    yield Asked("rooms", "budi", {})
    yield Asked("room_join", "budi", {"room": room})
    yield Asked("chat", "siti", {"to": room, "text": said, "id": secrets.token_hex(8)})
    yield Asked("room_members", "budi", {"room": room})
    yield Asked("room_leave", "budi", {"room": room})


def _of_the_administrator(canaries: Canaries, _: _People, door: str) -> Iterator[Asked]:
    def secret(name: str) -> str:
        return canaries.make(Kind.PASSWORD, f"{name}, {door}")

    user, public = f"goner-{door}", "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"
    hashed = _CHEAP_HASHER.hash(secret("hashed elsewhere"))
    canaries.know(Kind.HASH, "user_add's hash", hashed)
    yield Asked("user_add", "admin", {"user": user, "password": secret("user_add")})
    yield Asked("user_add", "admin", {"user": f"hashed-{door}", "password_hash": hashed})
    yield Asked("user_add", "siti", {"user": "no", "password": secret("user_add of a user")})
    yield Asked("user_passwd", "admin", {"user": user, "password": secret("user_passwd")})
    yield Asked("user_role", "admin", {"user": user, "role": "observer"})
    yield Asked("user_list", "admin", {})
    yield Asked("key_add", "admin", {"user": user, "key": public})
    yield Asked("key_list", "admin", {"user": user})
    yield Asked("key_remove", "admin", {"user": user, "key": public})
    yield Asked("session_list", "admin", {"user": "siti"})
    yield Asked("session_revoke", "admin", {"user": user, "session": "0" * 16})
    yield Asked("session_revoke_all", "admin", {"user": user})
    yield Asked("mailbox_list", "admin", {})
    yield Asked("mailbox_depth", "admin", {"user": "budi"})
    yield Asked("broker_status", "admin", {})
    yield Asked("broker_drain", "admin", {"on": False})
    yield Asked("broker_reload", "admin", {})
    yield Asked("broker_backup", "admin", {"name": f"canary-{door}"})
    yield Asked("user_remove", "admin", {"user": user})


def _at_the_end(canaries: Canaries, _: _People, __: str) -> Iterator[Asked]:
    yield Asked("logout", "siti", {})


def not_meant(canaries: Canaries, door: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each command with each of its fields wrong: type, size, place, and fields of no one."""
    for command in PARSERS:
        for name in _fields(command):
            secret = canaries.make(
                KINDS.get(name, Kind.PASSWORD), f"{command}'s {name}, wrongly, {door}"
            )
            plain = [] if name in _STORED or name == "text" else [secret]
            for value in (
                *plain,
                [secret],
                {secret: secret},
                secret.encode(),
                secret * _TIMES_TOO_MANY,
            ):
                yield command, {name: value}
        secret = canaries.make(Kind.PASSWORD, f"{command}'s unknown field, {door}")
        yield command, {"pasword": secret}
        yield command, {secret: "password"}


def _fields(command: str) -> tuple[str, ...]:
    arguments: Any = getattr(PARSERS[command], "__self__", None)
    names = getattr(arguments, "_fields", ())
    return tuple("id" if name == "message_id" else name for name in names)


def malformed(canaries: Canaries, door: str) -> Iterator[bytes]:
    """Yield frames that are no requests, each with a canary in it; the last one is too large."""
    encode = encoder()
    secret = canaries.make(Kind.PASSWORD, f"a malformed frame, {door}")
    args = {"user": "siti", "password": secret}
    login = encode_request(encode, 1, "login", None, args)
    yield from (login[:-3], login + secret.encode(), secret.encode(), login[1:], b"\xc1" + login)
    for request in (
        [1, secret, None, {}],
        [1, f"login siti {secret}", None, {}],
        [1, ["login", secret], None, args],
        [secret, "login", None, args],
        [1, "ping", secret, {}],
        [1, "ping", secret * 3, {}],
        [1, "ping", [secret], {}],
        [1, "login", None, ["siti", secret]],
        [1, "login", None, secret],
        [1, "login", None],
        [1, "login", None, args, secret],
        [[1, "ping", secret, {}], [2, secret, None, {}], secret],
        {"login": secret},
        secret,
        [secret] * 300,
    ):
        yield encode(request)
    yield login + secret.encode() * (FRAME_BYTES_MAX // 30)
