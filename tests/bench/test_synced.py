"""The echo that syncs: nothing is sent back before it stands in the file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import zmq

from tests.bench import synced


def test_what_comes_back_was_written_and_synced_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "file", list[bytes]()
    handle = os.open(path, os.O_RDWR | os.O_CREAT)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.bind("inproc://synced")
        with context.socket(zmq.DEALER) as dealer:
            dealer.connect("inproc://synced")

            def sync(_: int) -> None:
                seen.append(path.read_bytes())
                assert not dealer.poll(0)  # no answer is on its way yet

            monkeypatch.setattr(os, "fdatasync", sync)
            for body in (b"one", b"two"):
                dealer.send(body)
            place = synced.turn(router, handle, 0)
            assert [dealer.recv(), dealer.recv()] == [b"one", b"two"]
            dealer.send(b"three")
            assert synced.turn(router, handle, synced.FILE_BYTES) == place  # from the front again
            assert dealer.recv() == b"three"
    os.close(handle)
    assert b"one" in seen[0]
    assert b"two" in seen[0]
    assert b"three" in seen[1]
