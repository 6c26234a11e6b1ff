"""Requests and replies: the arrays that every frame holds.

A request is ``[id, command, token, args]``; a reply is ``[id, "OK", result]`` or ``[id, "ERROR",
{code, message, retry_after_ms?}]``; a frame may hold an array of either. Source: docs/PROTOCOL.md,
"Requests and replies".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from broker.wire.codec import Packer, unpack_reply, unpack_request
from broker.wire.errors import Code, WireError
from broker.wire.limits import REQUEST_ID_MAX, TOKEN_CHARS_MAX

OK: Final = "OK"
ERROR: Final = "ERROR"
EVENT: Final = "EVENT"

#: How msgpack begins an array of 16 to 65 535 elements; it may be one of fewer. And of up to 15.
_ARRAY_16: Final = b"\xdc"
_ARRAY_FIX: Final = 0x90
_ARRAY_FIX_MAX: Final = 15

#: ``autoreset`` is msgpack's default: one call, one complete value. Not for two threads at once.
Encode = Callable[[Any], bytes]


#: One decoded request: id, command, token, args. A plain tuple, as msgpack built it: a named one
#: costs 0.25 us a message on the hot path. What ``args`` must hold is the business of `commands`.
Request = tuple[int, str, str | None, dict[str, Any]]


class Reply(NamedTuple):
    """One decoded reply. ``request_id`` is None where the broker could not read one.

    Exactly one of ``result`` and ``error`` is set.
    """

    request_id: int | None
    result: Any
    error: WireError | None


class BadRequest(WireError):
    """A request frame that is refused, with the id to answer it under (None: unreadable)."""

    def __init__(self, request_id: int | None, message: str) -> None:
        super().__init__(Code.BAD_REQUEST, message)
        self.request_id = request_id


def encoder() -> Encode:
    """Return an encoder of its own for a thread."""
    encode: Encode = Packer().pack
    return encode


def encode_request(
    encode: Encode, request_id: int, command: str, token: str | None, args: Mapping[str, Any]
) -> bytes:
    """Encode one request frame."""
    return encode((request_id, command, token, args))


def decode_request(frame: bytes) -> Request:
    """Decode a frame with one request and check the envelope's types.

    Errors: `BadRequest`, with the request's id wherever it can be read.
    """
    return check_request(_unpack(frame))


def decode_requests(frame: bytes) -> tuple[Sequence[Any], bool]:
    """Decode a frame; return its requests, for `check_request`, and whether they are an array.

    Errors: `BadRequest`.
    """
    value = _unpack(frame)
    if type(value) is tuple and value and type(value[0]) is tuple:
        return value, True
    return (value,), False


def check_request(value: Any) -> Request:
    """Check a decoded request's types. Errors: `BadRequest`, as `decode_request`."""
    # Hot path: the good case is one length and five type checks.
    if type(value) is tuple and len(value) == 4:
        request_id, command, token, args = value
        if (
            type(request_id) is int
            and 0 <= request_id <= REQUEST_ID_MAX
            and type(command) is str
            and (token is None or (type(token) is str and len(token) <= TOKEN_CHARS_MAX))
            and type(args) is dict
        ):
            return value
    raise _explain(value)


def requests_in(frame: bytes) -> int:
    """Tell by its first bytes about how many requests a frame holds, without decoding it."""
    return int.from_bytes(frame[1:3], "big") if frame[:1] == _ARRAY_16 else 1


def join(frames: Sequence[bytes]) -> bytes:
    """Return one frame with an array of what the frames hold (65 535 of them at most)."""
    return b"".join((_ARRAY_16, len(frames).to_bytes(2, "big"), *frames))


def join_replies(frames: Sequence[bytes]) -> bytes:
    """Return one frame with an array of replies (65 535 at most), as msgpack encodes it."""
    if len(frames) > _ARRAY_FIX_MAX:
        return join(frames)
    return b"".join((bytes((_ARRAY_FIX | len(frames),)), *frames))


def _unpack(frame: bytes) -> Any:
    try:
        return unpack_request(frame)
    except WireError as error:
        raise BadRequest(None, error.message) from None


def _explain(value: Any) -> BadRequest:
    """Say what is wrong with an envelope: the slow path, for a person who writes a client."""
    if type(value) is not tuple or len(value) != 4:
        return BadRequest(None, "a request is an array of four: [id, command, token, args]")
    request_id, command, token, args = value
    if type(request_id) is not int or not 0 <= request_id <= REQUEST_ID_MAX:
        return BadRequest(None, "the request id must be an unsigned 64-bit integer")
    if type(command) is not str:
        return BadRequest(request_id, "the command must be a string")
    if token is not None and type(token) is not str:
        return BadRequest(request_id, "the token must be a string or nil")
    if token is not None and len(token) > TOKEN_CHARS_MAX:
        return BadRequest(request_id, "the token is too long: send the one that login returned")
    assert type(args) is not dict
    return BadRequest(request_id, "args must be a map; send an empty one where none are needed")


def encode_ok(encode: Encode, request_id: int, result: Mapping[str, Any]) -> bytes:
    """Encode one OK reply."""
    return encode((request_id, OK, result))


def encode_error(encode: Encode, request_id: int | None, error: WireError) -> bytes:
    """Encode one ERROR reply."""
    body: dict[str, Any] = {"code": error.code.value, "message": error.message}
    if error.retry_after_ms is not None:
        body["retry_after_ms"] = error.retry_after_ms
    return encode((request_id, ERROR, body))


def encode_event(encode: Encode, subscription: int, kind: str, fields: Mapping[str, Any]) -> bytes:
    """Encode one pushed event: ``subscription`` is the id of the request that asked for it."""
    return encode((None, EVENT, {"subscription": subscription, "kind": kind, **fields}))


def decode_replies(frame: bytes) -> Sequence[Any]:
    """Decode a frame of one reply or several, for `read_reply`.

    Errors: `WireError` ``bad_request`` when the peer is no Kotak broker.
    """
    value = unpack_reply(frame)
    if type(value) is list and value and type(value[0]) is list:
        return value
    return (value,)


def decode_reply(frame: bytes) -> Reply:
    """Decode a frame with one reply, as `read_reply`."""
    return read_reply(unpack_reply(frame))


def read_reply(value: Any) -> Reply:
    """Read one decoded reply.

    A code that this version does not know becomes ``internal``, so that a newer broker does not
    break an older client. Errors: `WireError` ``bad_request`` when the peer is no Kotak broker.
    """
    if type(value) is list and len(value) == 3:
        request_id, status, body = value
        if request_id is None or type(request_id) is int:
            if status == OK and type(body) is dict:
                return Reply(request_id, body, None)
            if status == ERROR and type(body) is dict:
                return Reply(request_id, None, _error_from(body))
    raise WireError(Code.BAD_REQUEST, "the reply has an unknown shape: is this a Kotak broker?")


#: By the name on the wire; a newer broker may know more of them.
_CODES: Final = {code.value: code for code in Code}


def _error_from(body: dict[str, Any]) -> WireError:
    name = body.get("code")
    code = _CODES.get(str(name), Code.INTERNAL)
    retry = body.get("retry_after_ms")
    return WireError(code, str(body.get("message", name)), retry if type(retry) is int else None)
