"""msgpack crashed when an Unpacker was used again after an error (CVE-2026-57585): neither here."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path
from typing import Final

import msgpack

ROOT: Final = Path(__file__).resolve().parents[2]
#: The first release that has it mended.
MENDED: Final = (1, 2, 1)


def test_the_msgpack_that_is_installed_and_the_least_that_is_asked_for_are_mended() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (asked,) = (each for each in project["dependencies"] if each.startswith("msgpack"))
    least = tuple(int(number) for number in asked.removeprefix("msgpack>=").split("."))
    assert MENDED <= least <= msgpack.version


def test_nothing_unpacks_but_frame_by_frame() -> None:
    """An Unpacker outlives what it has read; `unpackb` does not."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for top in ("broker", "clients")
        for path in sorted((ROOT / top).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute) and node.attr == "Unpacker")
        or (isinstance(node, ast.alias) and node.name == "Unpacker")
    ]
    assert found == []
