"""What the documents print holds: programs run, links lead somewhere, tables agree with the code.

The README's programs run as they are printed; only the broker's address is the test's own.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Final

import pytest

from broker.config import SETTINGS, Address, Config, show
from broker.exits import Exit
from broker.server import Server
from tests.conftest import Broker

ROOT: Final = Path(__file__).resolve().parent.parent
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS: Final = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
ADDRESS: Final = "tcp://127.0.0.1:8890"
OPERATIONS: Final = (ROOT / "docs/OPERATIONS.md").read_text(encoding="utf-8")
DOCUMENTS: Final = (
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs/decisions").glob("*.md")),
)


def run(program: str, broker: Broker) -> subprocess.CompletedProcess[str]:
    assert ADDRESS in program
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program.replace(ADDRESS, broker.zmq)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_readme_has_a_blocking_and_an_asyncio_program() -> None:
    assert [("AsyncClient" in program) for program in PROGRAMS] == [False, True]


def test_the_blocking_program_sends_reads_in_order_and_takes(demo_broker: Broker) -> None:
    done = run(PROGRAMS[0], demo_broker)
    assert (done.returncode, done.stderr) == (0, "")
    stored, refused, *read = done.stdout.splitlines()
    assert stored.endswith("memory")  # the fixture's store
    assert refused.startswith("no_such_user: ")
    texts = ["hai dudee", *(f"number {n}" for n in range(1_000))]
    assert read == [f"shafwa {text}" for text in texts]


def test_the_asyncio_program_stores_all_it_sends(demo_broker: Broker) -> None:
    done = run(PROGRAMS[1], demo_broker)
    assert (done.returncode, done.stdout, done.stderr) == (0, "100 stored\n", "")


def transcript(first: str) -> list[str]:
    """Return the lines of the indented block that begins with ``first``, without that line."""
    lines = README.splitlines()
    rest = lines[lines.index(f"    {first}") + 1 :]
    block = itertools.takewhile(lambda line: not line or line.startswith("    "), rest)
    return [line.strip() for line in block if line]


def without_secrets_and_times(line: str) -> str:
    return re.sub(
        r"\[\d{4}-\d\d-\d\d \d\d:\d\d\]", "[TIME]", re.sub(r"kt_[\w-]+(\.\.\.)?", "TOKEN", line)
    )


def test_the_chat_of_the_readme_says_what_is_printed(demo_broker: Broker) -> None:
    typed: list[str] = []
    said: list[str] = []
    for line in transcript("$ scripts/kotak"):
        match = re.fullmatch(r"Command \S*: (.*)|(.*)", line)
        assert match
        (typed if match[1] else said).append(match[1] or match[2])
    assert len(typed) == 7
    done = subprocess.run(
        [sys.executable, "-m", "broker.cli", "--broker", demo_broker.zmq],
        input="\n".join(typed[:-1]),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    greeting, *said = map(without_secrets_and_times, said)
    assert greeting.startswith("Kotak at ")  # at a terminal only
    assert [without_secrets_and_times(line) for line in done.stdout.splitlines()] == said


def test_the_lines_of_the_text_door_get_the_answers_that_are_printed(demo_broker: Broker) -> None:
    lines = transcript("$ nc 127.0.0.1 8889")
    assert len(lines) == 10
    token = ""
    with (
        socket.create_connection(demo_broker.text, timeout=30) as door,
        door.makefile("rb") as replies,
    ):
        for line, printed in zip(lines[::2], lines[1::2], strict=True):
            door.sendall(re.sub(r"kt_\S+", token, line).encode() + b"\n")
            reply = replies.readline().decode().rstrip("\r\n")
            assert replies.readline() == b"\r\n"
            assert without_secrets_and_times(reply) == without_secrets_and_times(printed)
            token = json.loads(reply).get("tokenid", token)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_link_in_a_document_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)", document.read_text(encoding="utf-8"))
    missing = [link for link in links if not (document.parent / link).exists()]
    assert not missing


def test_every_script_that_the_readme_names_exists() -> None:
    named = set(re.findall(r"\bscripts/(\w+)", README))
    assert named
    assert {name for name in named if not os.access(ROOT / "scripts" / name, os.X_OK)} == set()


def test_operations_lists_every_setting_with_its_default_and_what_is_allowed() -> None:
    for setting in SETTINGS.values():
        default = "~/.local/share/kotak" if setting.name == "data" else show(setting.default)
        unit = " ms" if setting.name.endswith("_ms") else ""
        row = f"| `{setting.name}` | `{default}` | {setting.kind.allowed}{unit} | {setting.help} |"
        assert row in OPERATIONS


def test_operations_lists_every_exit_code() -> None:
    for code in Exit:
        assert f"| {code.value} | {code.sentence}" in OPERATIONS


def test_operations_explains_every_metric(tmp_path: Path) -> None:
    page = metrics_page(tmp_path)
    names = set(re.findall(r"^# TYPE (kotak_\w+)", page, re.MULTILINE))
    assert len(names) > 10
    assert {name for name in names if f"| `{name}" not in OPERATIONS} == set()


def metrics_page(folder: Path) -> str:
    config = Config(
        data=folder / "data",
        store="memory:",
        zmq="tcp://127.0.0.1:0",
        text=None,
        http=Address("127.0.0.1", 0),
    )
    server = Server(config)
    try:
        doors = server.start()
        with urllib.request.urlopen(f"http://{doors.http}/metrics", timeout=30) as page:
            return str(page.read().decode())
    finally:
        server.stop()
