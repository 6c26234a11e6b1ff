"""``kotak ARGUMENTS`` run in this process, as the whole program would, against any broker."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from clients import cli
from tests.clients.fake_calls import FakeBroker

Kotak = Callable[..., int]


def commands(broker: FakeBroker, session_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kotak:
    """Return what runs ``kotak ARGUMENTS`` and returns its exit code."""
    monkeypatch.setenv("KOTAK_SESSION_FILE", str(session_path))
    monkeypatch.delenv("KOTAK_BROKER", raising=False)
    monkeypatch.setenv("MKS", "mks")
    monkeypatch.setenv("PRP", "prp")

    def run(*argv: str) -> int:
        parser = argparse.ArgumentParser(prog="kotak")
        cli.add_commands(parser.add_subparsers(required=True), connect=broker.connect)
        args = parser.parse_args(argv)
        code: int = args.run(args)
        return code

    return run
