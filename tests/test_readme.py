"""What the documents print holds: programs run, links lead somewhere, tables agree with the code.

The README's programs run as they are printed; only the broker's address is the test's own.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from broker.config import SETTINGS, Address, Config, show
from broker.exits import Exit
from broker.server import Server
from clients import Client
from tests.conftest import Broker
from tests.e2e import program
from tests.e2e.program import Program, eventually
from tests.e2e.terminal import Terminal

ROOT: Final = Path(__file__).resolve().parent.parent
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS: Final = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
ADDRESS: Final = "tcp://127.0.0.1:8890"
OPERATIONS: Final = (ROOT / "docs/OPERATIONS.md").read_text(encoding="utf-8")
DOCUMENTS: Final = (
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs/decisions").glob("*.md")),
    ROOT / "docs/bench/README.md",
)


def run(text: str, broker: Broker) -> subprocess.CompletedProcess[str]:
    assert ADDRESS in text or "broker.embedding" in text
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", text.replace(ADDRESS, broker.zmq)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_readme_has_these_programs_in_this_order() -> None:
    marks = ("send_many", "AsyncClient", "client.messages()", "rooms.create", "broker.embedding")
    assert [[mark in text for mark in marks] for text in PROGRAMS] == [
        [here is mark for here in marks] for mark in marks
    ]


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


def test_the_receiver_prints_what_waits_and_what_arrives_and_takes_it(
    demo_broker: Broker,
) -> None:
    assert ADDRESS in PROGRAMS[2]
    with Client(demo_broker.zmq) as sender, Client(demo_broker.zmq) as reader:
        sender.login("shafwa", "mks")
        reader.login("afif", "plp")
        sender.send("afif", "waits")
        with subprocess.Popen(
            [sys.executable, "-W", "error", "-uc", PROGRAMS[2].replace(ADDRESS, demo_broker.zmq)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        ) as receiver:
            try:
                assert receiver.stdout is not None
                assert receiver.stdout.readline() == b"shafwa waits\n"
                sender.send("afif", "arrives")
                assert receiver.stdout.readline() == b"shafwa arrives\n"
                eventually(lambda: not reader.inbox().messages)
            finally:
                receiver.kill()


def test_the_rooms_program_tells_what_came_from_where_and_what_became_of_it(
    demo_broker: Broker,
) -> None:
    done = run(PROGRAMS[3], demo_broker)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [re.sub(r"^\d+ ", "SEQ ", line) for line in done.stdout.splitlines()]
    assert lines == [
        "#kelas besok libur False",
        "shafwa jadi datang? False",
        "delivered",
        "SEQ #kelas stored besok libur",
        "SEQ afif delivered jadi datang?",
        "shafwa connected",
        "afif connected",
    ]


def test_the_embedding_program_needs_no_broker_beside_it(demo_broker: Broker) -> None:
    done = run(PROGRAMS[4], demo_broker)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def transcript(first: str) -> list[str]:
    """Return the lines of the indented block that begins with ``first``, without that line."""
    lines = README.splitlines()
    rest = lines[lines.index(f"    {first}") + 1 :]
    block = itertools.takewhile(lambda line: not line or line.startswith("    "), rest)
    return [line.strip() for line in block if line]


def without_secrets_and_times(line: str) -> str:
    line = re.sub(r"kt_[\w-]+(\.\.\.)?", "TOKEN", line)
    line = re.sub(r"\(sequence \d+\)", "(sequence N)", line)
    line = re.sub(r"^\d+ +\[", "N [", line)
    return re.sub(r"\[\d{4}-\d\d-\d\d \d\d:\d\d\]", "[TIME]", line)


def test_the_chat_of_the_readme_is_what_a_terminal_shows(demo_broker: Broker) -> None:
    with closing(Terminal({}, "--broker", demo_broker.zmq)) as terminal:
        typed = 0
        for line in transcript("$ scripts/kotak"):
            match = re.fullmatch(r"(Command )(?::|kt_\S+:) (.*)", line)
            if match:
                terminal.read_until("Command kt_" if "kt_" in line.split(": ")[0] else "Command :")
                terminal.type(f"{match[2]}\r")
                typed += 1
            else:
                shown = line.replace(ADDRESS, demo_broker.zmq)
                terminal.read_until(re.sub(r"^\[.*?\] |(?<=kt_)\S+", "", shown))
        assert typed == 7
        assert terminal.leave("quit\r") == 0


PASSWORDS: Final = {"shafwa": "mks", "fadly": "prp", "afif": "plp"}


def test_the_single_commands_of_the_readme_say_what_is_printed(
    demo_broker: Broker, tmp_path: Path
) -> None:
    env = {"KOTAK_BROKER": demo_broker.zmq, "KOTAK_SESSION_FILE": str(tmp_path / "session")}
    assert replay("$ scripts/kotak login shafwa", demo_broker, env) == 6


def test_rooms_receipts_and_history_say_what_is_printed(
    demo_broker: Broker, tmp_path: Path
) -> None:
    for user, first, commands in (
        ("shafwa", "$ scripts/kotak room create kelas --history", 5),
        ("fadly", "$ scripts/kotak room join kelas", 3),
    ):
        env = {"KOTAK_BROKER": demo_broker.zmq, "KOTAK_SESSION_FILE": str(tmp_path / user)}
        program.run("login", user, "--password-stdin", typed=f"{PASSWORDS[user]}\n", env=env)
        assert replay(first, demo_broker, env) == commands


def replay(first: str, broker: Broker, env: dict[str, str]) -> int:
    """Run the commands of a block and compare what they say; return how many there were."""
    commands = "\n".join([first, *transcript(first)]).split("$ scripts/kotak ")[1:]
    for command in commands:
        line, *printed = command.splitlines()
        words = shlex.split(line)
        if words[0] == "login":
            done = program.run(
                *words, "--password-stdin", typed=f"{PASSWORDS[words[1]]}\n", env=env
            )
            assert printed.pop(0) == f"Password of {words[1]}:"
        elif words[0] == "watch":
            done = watch(broker, env, printed[1].rpartition(": ")[2])
            assert printed.pop() == "^C"
        else:
            done = program.run(*words, env=env)
        assert done.code == 0
        said = sorted((done.out + done.err).replace(broker.zmq, ADDRESS).splitlines())
        assert [without_secrets_and_times(each) for each in said] == sorted(
            without_secrets_and_times(each) for each in printed
        )
    return len(commands)


def watch(broker: Broker, env: dict[str, str], text: str) -> program.Ended:
    """Run ``kotak watch`` until it has shown ``text``, which Afif sends; end it with Ctrl-C."""
    with Program("watch", env=env) as watching, Client(broker.zmq) as afif:
        afif.login("afif", PASSWORDS["afif"])
        afif.send("fadly", text)
        watching.wait_for(re.compile(re.escape(text)))
        watching.signal(signal.SIGINT)
        return watching.end()


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


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
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
