"""The bytes of version 1, in both directions: a client in another language can be tested on them.

``golden.json`` holds one request, one result, one error and one event a row: ``value`` is the array
that ``hex`` encodes; a name begins with what the row is of. Bytes that were published never change;
new forms are added.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgpack
import pytest

from broker.wire.codec import unpack_reply
from broker.wire.commands import ALIASES, PARSERS
from broker.wire.envelope import (
    EVENT,
    decode_reply,
    decode_request,
    encode_error,
    encode_event,
    encode_ok,
    encode_request,
    encoder,
)
from broker.wire.errors import Code, WireError

GOLDEN: dict[str, list[dict[str, Any]]] = json.loads(
    Path(__file__).with_name("golden.json").read_text("utf-8")
)


def rows(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", GOLDEN[kind], ids=lambda row: row["name"])


@rows("requests")
def test_a_request_in_both_directions(row: dict[str, Any]) -> None:
    request_id, command, token, args = row["value"]
    frame = encode_request(encoder(), request_id, command, token, args)
    assert frame.hex() == row["hex"]
    assert list(decode_request(bytes.fromhex(row["hex"]))) == row["value"]
    assert PARSERS[ALIASES.get(command, command)](args) is not None


@rows("results")
def test_a_result_in_both_directions(row: dict[str, Any]) -> None:
    request_id, _, result = row["value"]
    assert encode_ok(encoder(), request_id, result).hex() == row["hex"]
    assert decode_reply(bytes.fromhex(row["hex"])) == (request_id, result, None)


@rows("errors")
def test_an_error_in_both_directions(row: dict[str, Any]) -> None:
    request_id, _, body = row["value"]
    error = WireError(Code(body["code"]), body["message"], body.get("retry_after_ms"))
    assert encode_error(encoder(), request_id, error).hex() == row["hex"]
    reply = decode_reply(bytes.fromhex(row["hex"]))
    assert (reply.request_id, reply.result) == (request_id, None)
    assert reply.error is not None
    assert reply.error.args == error.args


@rows("events")
def test_an_event_as_it_is_pushed(row: dict[str, Any]) -> None:
    request_id, status, body = row["value"]
    assert (request_id, status) == (None, EVENT)
    fields = {key: value for key, value in body.items() if key not in ("subscription", "kind")}
    frame = encode_event(encoder(), body["subscription"], body["kind"], fields)
    assert frame.hex() == row["hex"]
    assert unpack_reply(bytes.fromhex(row["hex"])) == row["value"]


def test_every_form_has_its_bytes() -> None:
    requests = {row["value"][1] for row in GOLDEN["requests"]}
    assert requests == {*PARSERS, *ALIASES}
    assert set(PARSERS) == {row["name"].split(" ")[0] for row in GOLDEN["results"]}
    assert {row["name"].split(" ")[0] for row in GOLDEN["errors"]} == {code.value for code in Code}


def test_no_two_rows_have_one_name() -> None:
    for rows_of_kind in GOLDEN.values():
        names = [row["name"] for row in rows_of_kind]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("kind", ["requests", "results"])
def test_a_row_is_of_what_its_name_says(kind: str) -> None:
    for row in GOLDEN[kind]:
        named = row["name"].split(" ")[0].rstrip(",")
        assert named in PARSERS
        if kind == "requests":
            assert ALIASES.get(row["value"][1], row["value"][1]) == named


def test_the_first_request_by_hand() -> None:
    """One row written out, so that the rest does not rest on one library alone."""
    ping = bytes([0x94, 2, 0xA4, *b"ping", 0xC0, 0x80])
    assert ping.hex() == next(r["hex"] for r in GOLDEN["requests"] if r["name"] == "ping")


# --- replies of another make -----------------------------------------------------------------


def test_an_unknown_code_of_a_newer_broker_is_internal() -> None:
    reply = decode_reply(msgpack.packb([1, "ERROR", {"code": "brand_new", "retry_after_ms": "x"}]))
    assert reply.error is not None
    assert reply.error.args == (Code.INTERNAL, "brand_new", None)


def test_fields_that_are_not_known_pass() -> None:
    assert decode_reply(msgpack.packb([1, "OK", {"seq": 1, "new": [2]}])).result["new"] == [2]


@pytest.mark.parametrize(
    "value",
    [
        None, 1, "OK", [], [1, "OK"], [1, "OK", {}, 4], ["1", "OK", {}], [1, "ok", {}],
        [1, "ERROR", "sentence"], [1, "OK", None], [1, "OK", []], [True, "OK", {}],
        [None, "EVENT", {}], {"id": 1},
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_reply_is_refused(value: object) -> None:
    with pytest.raises(WireError, match="is this a Kotak broker"):
        decode_reply(msgpack.packb(value))


@pytest.mark.parametrize("frame", [b"", b"HTTP/1.1 200 OK\r\n\r\n", b"\xc1", b"\x93\x01"], ids=repr)
def test_what_is_no_msgpack_is_no_reply(frame: bytes) -> None:
    with pytest.raises(WireError, match="is this a Kotak broker"):
        decode_reply(frame)


def test_an_encoder_is_clean_after_an_error() -> None:
    encode = encoder()
    with pytest.raises(TypeError):
        encode([1, object()])
    assert encode([2]) == b"\x91\x02"
