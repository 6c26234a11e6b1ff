"""Everything that reads bytes from outside, each with what must hold of whatever it returns.

The rule for all: a value, or the error that the module documents, and nothing else. Where a value
comes out it is held against what PROTOCOL.md promises of it, by other code than the parser's own.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

from broker import accounts_file
from broker.config import SETTINGS, ConfigError, load, show
from broker.exits import ExitError
from broker.server import access
from broker.wire import keyfile, text
from broker.wire.commands import ALIASES, PARSERS
from broker.wire.envelope import (
    check_request,
    decode_replies,
    decode_requests,
    encode_request,
    encoder,
    read_reply,
    requests_in,
)
from broker.wire.errors import Code, WireError
from broker.wire.limits import ARRAY_ITEMS_MAX, LINE_BYTES_MAX, TOKEN_CHARS_MAX
from clients import session_file
from tests.hostile.fuzz import files
from tests.hostile.fuzz.breach import judge_refusal, require
from tests.hostile.fuzz.grammar import ON_THE_WIRE, Grammar, fields_of, reply
from tests.hostile.fuzz.lines import Lines

_encode: Final = encoder()

#: What PROTOCOL.md allows: characters of a text, or the least and the greatest of a number.
_CHARS_MAX: Final[Mapping[str, int]] = {
    **dict.fromkeys(("user", "to", "room", "of", "after", "id", "client"), 64),
    "device": 32,
    "key": 40,
    "password_hash": 256,
}
_BYTES_MAX: Final[Mapping[str, int]] = {
    "text": 65_536,
    "name": 128,
    "password": 1_024,
    "new_password": 1_024,
}
_RANGES: Final[Mapping[str, tuple[int, int]]] = {
    "limit": (1, 1_000),
    "window": (1, 1_000),
    "ttl_ms": (1_000, 315_360_000_000),
}


class Target(NamedTuple):
    """One reader: ``check`` raises where something does not hold, ``fresh`` makes inputs.

    ``share``: how many of a thousand inputs are for it.
    """

    name: str
    share: int
    check: Callable[[bytes], None]
    fresh: Callable[[Random], Callable[[], bytes]]


# --- The ZeroMQ door -------------------------------------------------------------------------


def check_requests(frame: bytes) -> None:
    """Decode a frame and parse the arguments of each of its requests."""
    try:
        requests, together = decode_requests(frame)
    except WireError as error:
        judge_refusal(error)
        return
    require(len(requests) <= ARRAY_ITEMS_MAX, "no more requests than a frame may hold")
    require(together or len(requests) == 1, "several requests come together")
    require(requests_in(frame) in (1, len(requests)) or not together, "the estimate is right")
    for value in requests:
        try:
            request = check_request(value)
        except WireError as error:
            judge_refusal(error)
            continue
        _check_request(*request)


def _check_request(number: int, command: str, token: str | None, args: dict[str, Any]) -> None:
    require(0 <= number < 2**64, "an id is a uint64")
    require(token is None or len(token) <= TOKEN_CHARS_MAX, "a token is no longer than any")
    again = encode_request(_encode, number, command, token, args)
    decoded = decode_requests(again)[0][0]
    # As bytes: NaN is not equal to itself.
    require(_encode(decoded) == again, "what was decoded is encoded and decoded to the same")
    parse = PARSERS.get(ALIASES.get(command, command))
    if parse is None:
        return
    try:
        parsed = parse(args)
    except WireError as error:
        judge_refusal(error)
        return
    _check_args(parsed, args)


def _check_args(parsed: Any, args: dict[str, Any]) -> None:
    """Each field that was given is in what came out, as it was given, and within its limit."""
    bare = type(parsed) is tuple  # of a chat
    fields = dict(zip(fields_of("chat"), parsed, strict=True)) if bare else parsed._asdict()
    named = {ON_THE_WIRE.get(name, name): value for name, value in fields.items()}
    for key, value in args.items():
        if value is None:  # in an optional field: as if it were not there
            continue
        require(key in named and named[key] == value, f"'{key}' is what was sent")
        require(type(value) in (str, int, bool), f"'{key}' has a plain type")
        if type(value) is str:
            require(value, f"'{key}' is not empty")
            require(len(value) <= _CHARS_MAX.get(key, 2**20), f"'{key}' has too many characters")
            require(len(value.encode()) <= _BYTES_MAX.get(key, 65_536), f"'{key}' is too long")
        elif type(value) is int:
            low, high = _RANGES.get(key, (0, 2**63 - 1))
            require(low <= value <= high, f"'{key}' lies outside of its range")


def check_replies(frame: bytes) -> None:
    """Decode a frame of replies, as a client does."""
    try:
        values = decode_replies(frame)
    except WireError as error:
        judge_refusal(error)
        return
    for value in values:
        try:
            read = read_reply(value)
        except WireError as error:
            judge_refusal(error)
            continue
        require((read.result is None) != (read.error is None), "a result or an error")
        require(read.request_id is None or type(read.request_id) is int, "an id, or none")


# --- The text door ---------------------------------------------------------------------------


def check_lines(stream: bytes) -> None:
    """Cut a stream into lines and parse each; cutting it elsewhere must give the same lines."""
    lines = _split(stream, len(stream) or 1)
    if 1 < len(stream) < 500:
        require(_split(stream, 1 + stream[0] % 7) == lines, "segments do not show in the lines")
    for line in lines:
        try:
            parsed = text.parse_line(line)
        except WireError as error:
            judge_refusal(error)
            _check_refusal(error.code, error.message)
            continue
        if parsed is not None:
            _check_line(parsed)


@cache  # there are few of them
def _check_refusal(code: Code, message: str) -> None:
    frame = text.error_reply(WireError(code, message))
    require(frame.isascii() and frame.find(b"\r\n") == len(frame) - 4, "one ASCII frame")
    require(json.loads(frame)["status"] == "ERROR", "an ERROR in JSON")


def _check_line(line: text.Line) -> None:
    require((line.token is None) == (line.command == "login"), "all but login have a token")
    require(line.token is None or 0 < len(line.token) <= TOKEN_CHARS_MAX, "a token of a length")
    extra = {"id": "1"} if line.command == "chat" else {}
    try:
        PARSERS[line.command]({**line.args, **extra})
    except WireError as error:
        judge_refusal(error)
    frame = text.inbox_reply([(line.command, "x", each) for each in line.args.values()])
    require(frame.isascii() and frame.find(b"\r\n") == len(frame) - 4, "one ASCII frame")


def _split(stream: bytes, size: int) -> list[bytes]:
    splitter = text.LineSplitter()
    lines: list[bytes] = []
    for start in range(0, len(stream), size):
        splitter.feed(stream[start : start + size])
        while (line := splitter.pop()) is not None:
            require(len(line) <= LINE_BYTES_MAX + 1, "a line is cut behind its limit")
            lines.append(line)
    return lines


# --- Files -----------------------------------------------------------------------------------


def check_keys(content: bytes) -> None:
    """Read a key file, and the same as a list of public keys."""
    written = content.decode(errors="replace")
    for read in (keyfile.parse_keys, keyfile.parse_public_keys):
        try:
            found: Any = read(written)
        except ValueError as error:
            require(len(str(error)) < 100, "no error quotes a key")
            continue
        keys = found if isinstance(found, list) else [found.public, found.secret, found.server]
        require(all(key is None or keyfile.is_key(key) for key in keys), "keys are keys")
        if isinstance(found, keyfile.KeyFile):
            again = keyfile.parse_keys(keyfile.format_keys(found, comment="x"))
            require(again == found, "what was read is written and read to the same")


def check_accounts(content: bytes) -> None:
    """Read a list of accounts."""
    accounts, problems = accounts_file.parse(io.BytesIO(content))
    lines = content.count(b"\n") + 1
    require(len(accounts) + len(problems) <= lines, "a line is an account or a problem")
    require(all(len(each) < 400 for each in problems), "problems are sentences")
    for account in accounts:
        require(1 <= account.line <= lines, "a line that is there")
        require(PARSERS["user_add"](dict(account.args)), "user_add takes it")


@cache
def _folder() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="kotak-fuzz-")


def _file(content: bytes) -> Path:
    path = Path(_folder().name, "file")
    path.touch(mode=0o600)
    path.write_bytes(content)
    return path


def check_admin(content: bytes) -> None:
    """Read what tells the administrator's commands where the broker is."""
    try:
        address, token, _ = access._read(_file(content))
    except ExitError:
        return
    require(type(address) is str and type(token) is str, "an address and a token")


def check_session(content: bytes) -> None:
    """Read the session that the command line keeps."""
    try:
        session = session_file.read_session(_file(content))
    except session_file.SessionFileError:
        return
    require(session is not None and type(session.token) is str, "a session has a token")


def check_config(content: bytes) -> None:
    """Read a configuration, and set the same words by the environment."""
    for from_file in (True, False):
        environ = {"HOME": "/nowhere"} if from_file else files.as_environment(content)
        try:
            config = load(
                flags={}, environ=environ, file=str(_file(content)) if from_file else None
            ).config
        except ConfigError as error:
            require(len(str(error)) < 2_000, "the sentence does not hold the file")
            continue
        for name in SETTINGS:
            require(isinstance(show(getattr(config, name)), str), "every setting can be shown")


def _grammar(rng: Random) -> Callable[[], bytes]:
    return Grammar(rng, oddity=0.2).frame


def _lines(rng: Random) -> Callable[[], bytes]:
    return Lines(rng, oddity=0.3).stream


def _from(make: Callable[[Random], bytes]) -> Callable[[Random], Callable[[], bytes]]:
    return lambda rng: partial(make, rng)


TARGETS: Final = (
    Target("request", 560, check_requests, _grammar),
    Target("line", 300, check_lines, _lines),
    Target("reply", 100, check_replies, _from(reply)),
    Target("keys", 15, check_keys, _from(files.keys)),
    Target("accounts", 15, check_accounts, _from(files.accounts)),
    Target("config", 4, check_config, _from(files.config)),
    Target("admin", 3, check_admin, _from(files.admin)),
    Target("session", 3, check_session, _from(files.session)),
)
