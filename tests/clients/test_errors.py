from __future__ import annotations

import inspect
import pickle

import pytest

import clients
from broker.wire.errors import Code, WireError
from clients import errors
from clients.errors import (
    CLASSES,
    ConnectionFailed,
    HistoryLost,
    InternalError,
    KotakError,
    RequestError,
    RequestTimeout,
    Unavailable,
    from_wire,
)


@pytest.mark.parametrize("code", list(Code))
def test_every_code_of_the_protocol_has_a_class_and_keeps_its_fields(code: Code) -> None:
    error = from_wire(WireError(code, "a sentence", 250))
    assert type(error) is CLASSES[code]
    assert (error.code, error.message, error.retry_after_ms) == (code, "a sentence", 250)
    assert str(error) == f"{code}: a sentence"


def test_no_two_codes_share_a_class() -> None:
    assert len(set(CLASSES.values())) == len(Code)


def test_every_error_is_a_kotak_error_and_stands_in_the_drawn_tree() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    own = [kind for kind in kinds if issubclass(kind, KotakError)]
    assert len(own) > 15
    for kind in own:
        assert kind.__name__ in (errors.__doc__ or "")


def test_a_request_error_is_caught_as_the_wires_own_error() -> None:
    assert issubclass(RequestError, WireError)


@pytest.mark.parametrize("kind", [RequestTimeout, ConnectionFailed])
def test_the_clients_own_failures_are_unavailable_and_name_the_message(
    kind: type[RequestTimeout | ConnectionFailed],
) -> None:
    error = kind("nobody answered", message_id="m1")
    assert isinstance(error, Unavailable)
    assert error.code is Code.UNAVAILABLE
    assert error.message_id == "m1"
    assert "nobody answered" in str(error)


def test_an_unknown_code_is_treated_as_internal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "CLASSES", {})
    assert type(from_wire(WireError(Code.BUSY, "x"))) is InternalError


def test_lost_history_is_no_failed_request_and_survives_pickling() -> None:
    lost = pickle.loads(pickle.dumps(HistoryLost(8, 20)))
    assert not isinstance(lost, RequestError)
    assert (lost.first, lost.last) == (8, 20)
    assert "8 to 20" in str(lost)


def test_what_the_library_offers_is_listed_and_sorted() -> None:
    assert clients.__all__ == sorted(clients.__all__)
    own = {kind.__name__ for kind in (*CLASSES.values(), HistoryLost)}
    assert own <= set(clients.__all__)
