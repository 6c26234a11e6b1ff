"""With ROUTER_MANDATORY a send that waits would hold the whole broker up: none of them may."""

from __future__ import annotations

import ast
import inspect

from broker.transports import router, zap

#: What each send must be told, by its last argument.
NEVER_WAITING = {"_NOBLOCK", "_NOBLOCK_MORE"}
SENDS = {"send", "send_multipart", "send_serialized", "send_pyobj", "send_string"}


def flags(source: str) -> list[str]:
    """Return the last argument of every send on a socket, as it is written."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return [
        ast.unparse(call.args[-1]) if call.args else ""
        for call in calls
        if ast.unparse(call.func).rpartition(".")[2] in SENDS
    ]


def test_no_send_of_the_router_or_of_the_zap_handler_waits() -> None:
    for module, sends in ((router, 4), (zap, 2)):
        found = flags(inspect.getsource(module))
        assert len(found) == sends, "a new send: see that it never waits, and count it here"
        assert set(found) <= NEVER_WAITING


def test_a_send_that_may_wait_is_found() -> None:
    assert flags("self._socket.send(frame)") == ["frame"]
    assert flags("send(frame, zmq.SNDMORE)") == ["zmq.SNDMORE"]
    assert flags("socket.send_multipart(frames, _NOBLOCK)") == ["_NOBLOCK"]
