"""broker.cli: what each command line calls, prints and returns. Accounts stand in test_admin.py."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import broker
import clients
from broker import cli, logs
from broker.config import SETTINGS, Address, Config
from broker.exits import Exit, ExitError
from broker.transports.curve import Pair, read_pair
from clients.curve_keys import Curve, read_curve


class FakeServer(types.ModuleType):
    """Stands for broker.server: remembers what it was asked to run."""

    def __init__(self) -> None:
        super().__init__("broker.server")
        self.ran: list[Any] = []
        self.raises: BaseException | None = None

    def run(self, config: Config) -> int:
        self.ran.append(config)
        if self.raises:
            raise self.raises
        return Exit.DISK_FAILED

    def run_gateway(self, config: Config, broker_address: str, *, curve: Curve | None) -> int:
        self.ran.append((config, broker_address, curve))
        return Exit.OK


class FakeClient(types.ModuleType):
    """Stands for clients.cli: two commands, and the interactive chat."""

    def __init__(self) -> None:
        super().__init__("clients.cli")
        self.ran: list[argparse.Namespace] = []

    def add_common_options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--broker", default=argparse.SUPPRESS)

    def add_commands(self, commands: Any) -> None:
        for name in ("send", "inbox"):
            commands.add_parser(name).set_defaults(run=self._run, said=name)

    def _run(self, args: argparse.Namespace) -> int:
        self.ran.append(args)
        return 3

    def interactive(self, args: argparse.Namespace) -> int:
        self.ran.append(args)
        return 0


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("KOTAK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    fake = FakeServer()
    monkeypatch.setitem(sys.modules, "broker.server", fake)
    monkeypatch.setattr(broker, "server", fake, raising=False)
    return fake


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    fake = FakeClient()
    monkeypatch.setitem(sys.modules, "clients.cli", fake)
    monkeypatch.setattr(clients, "cli", fake, raising=False)
    return fake


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Any:
    calls: list[tuple[str, bool]] = []
    monkeypatch.setattr(logs, "configure", lambda level, json: calls.append((level, json)))
    return caplog, calls


def usage_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run what must end with exit code 2, by argparse or by us; return what was said."""
    try:
        assert cli.main(words) == Exit.USAGE
    except SystemExit as stop:
        assert stop.code == Exit.USAGE  # noqa: PT017 - both ways of ending are right
    return capsys.readouterr().err


# --- serve and check-config --------------------------------------------------------------------


def test_serve_hands_the_settings_over_and_returns_what_the_server_says(
    server: FakeServer, logged: Any
) -> None:
    words = ["serve", "--text", "off", "--workers", "7", "--demo", "--log-json"]
    assert cli.main(words) == Exit.DISK_FAILED
    (config,) = server.ran
    assert (config.text, config.workers, config.demo) == (None, 7, True)
    assert logged[1] == [("info", True)]


def test_every_setting_is_a_flag_of_serve_and_in_its_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["serve", "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for setting in SETTINGS.values():
        assert setting.flag in shown
    assert "KOTAK_NAME" in shown


def test_a_switch_can_be_turned_off_again(
    server: FakeServer, logged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KOTAK_DEMO", "true")
    cli.main(["serve", "--no-demo"])
    assert server.ran[0].demo is False
    assert logged


def test_an_error_that_ends_the_server_becomes_its_sentence_and_exit_code(
    server: FakeServer, logged: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    server.raises = ExitError(Exit.DATA_FOLDER, "another broker holds /x")
    assert cli.main(["serve"]) == 5
    assert capsys.readouterr().err == "kotak: another broker holds /x\n"
    server.raises = KeyboardInterrupt()
    assert cli.main(["serve"]) == 130
    assert logged


def test_a_wrong_setting_ends_before_the_server_is_loaded(
    server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    said = usage_error(["serve", "--workers", "99"], capsys)
    assert said == "kotak: --workers is '99', but must be an integer from 2 to 64\n"
    assert server.ran == []


def test_an_abbreviated_flag_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    error = usage_error(["serve", "--worker", "3"], capsys)
    assert "does not know '--worker'; did you mean --workers?" in error


def test_check_config_shows_each_setting_its_value_and_source(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "kotak.toml"
    file.write_text('text = "off"')
    monkeypatch.setenv("KOTAK_WORKERS", "9")
    assert cli.main(["check-config", "--config", str(file), "--http", "[::1]:0"]) == Exit.OK
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert rows["text"] == ["off", str(file)]
    assert rows["workers"] == ["9", "KOTAK_WORKERS"]
    assert rows["http"] == ["[::1]:0", "--http"]
    assert rows["mailbox_messages_max"] == ["1_000_000", "default"]
    assert set(SETTINGS) <= set(rows)


def test_check_config_refuses_what_serve_would_refuse(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["check-config", "--zmq", "tcp://0.0.0.0:8890"]
    assert cli.main(words) == Exit.USAGE
    assert "kotak: refused: zmq listens on 0.0.0.0:8890" in capsys.readouterr().err
    assert cli.main([*words, "--insecure-public"]) == Exit.OK
    assert "kotak: warning: zmq listens on 0.0.0.0:8890" in capsys.readouterr().err


def test_check_config_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    said = usage_error(["check-config", "--config", "/nowhere/kotak.toml"], capsys)
    assert said == "kotak: cannot read /nowhere/kotak.toml: No such file or directory\n"


# --- gateway -----------------------------------------------------------------------------------


def test_gateway_text_runs_in_front_of_the_broker_named(server: FakeServer, logged: Any) -> None:
    words = ["gateway", "text", "--broker", "tcp://[::1]:9", "--text", "127.0.0.1:0"]
    assert cli.main(words) == Exit.OK
    ((config, address, curve),) = server.ran
    assert config.text == Address("127.0.0.1", 0)
    assert (address, curve) == ("tcp://[::1]:9", None)
    assert logged


def test_a_gateway_takes_the_key_of_the_broker_behind_it(
    server: FakeServer, logged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["gateway", "text", "--broker", "tcp://h:9"]
    keys = [Pair.make().public for _ in range(2)]
    assert cli.main([*words, "--curve", keys[0]]) == Exit.OK
    monkeypatch.setenv("KOTAK_CURVE", keys[1])
    assert cli.main(words) == Exit.OK
    assert [curve.server for _, _, curve in server.ran] == keys


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gateway"], "required: text"),
        (["gateway", "text"], "--broker"),
        (["gateway", "text", "--broker", "here"], "--broker is 'here', but must be tcp://"),
        (["gateway", "text", "--broker", "tcp://h:1", "--text", "off"], "needs an address"),
        (["gateway", "text", "--broker", "tcp://h:1", "--workers", "3"], "--workers"),
        (["gateway", "text", "--broker", "tcp://h:1", "--curve", "/nowhere"], "cannot read"),
    ],
)
def test_a_gateway_that_cannot_work_is_a_usage_error(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], server: FakeServer
) -> None:
    assert said in usage_error(words, capsys)
    assert server.ran == []


# --- keygen --------------------------------------------------------------------------------------


def test_keygen_makes_a_key_prints_its_public_half_and_overwrites_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "broker.key"
    assert cli.main(["keygen", str(file)]) == Exit.OK
    said = capsys.readouterr()
    pair = read_pair(file)
    assert said.out == f"{pair.public}\n"
    assert pair.secret not in said.err
    assert cli.main(["keygen", str(file)]) == Exit.USAGE
    assert "exists already" in capsys.readouterr().err
    assert read_pair(file) == pair


@pytest.mark.parametrize("given", ["key", "file"])
def test_keygen_puts_the_brokers_key_into_a_clients(
    given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["keygen", str(tmp_path / "broker.key")])
    public = capsys.readouterr().out.strip()
    broker = public if given == "key" else str(tmp_path / "broker.key.pub")
    assert cli.main(["keygen", str(tmp_path / "me.key"), "--broker", broker]) == Exit.OK
    curve = read_curve(str(tmp_path / "me.key"))
    assert (curve.server, curve.public) == (public, capsys.readouterr().out.strip())


@pytest.mark.parametrize("words", [["no/folder/key"], ["key", "--broker", "rubbish"]])
def test_keygen_that_cannot_work_is_a_usage_error(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["keygen", *words]) == Exit.USAGE
    assert capsys.readouterr().err.startswith("kotak: cannot ")
    assert list(tmp_path.iterdir()) == []


def test_a_key_on_a_command_line_never_looks_like_an_option() -> None:
    assert not any(Pair.make().public.startswith("-") for _ in range(500))


# --- the clients' commands -----------------------------------------------------------------------


def test_a_client_command_runs_and_its_exit_code_is_ours(client: FakeClient) -> None:
    assert cli.main(["--broker", "tcp://h:1", "send"]) == 3
    assert (client.ran[0].said, client.ran[0].broker) == ("send", "tcp://h:1")


@pytest.mark.parametrize("words", [[], ["--broker", "tcp://h:1"]])
def test_without_a_command_the_chat_begins(client: FakeClient, words: list[str]) -> None:
    assert cli.main(words) == 0
    assert len(client.ran) == 1


def test_an_unknown_command_is_refused_with_the_nearest_one(
    client: FakeClient, capsys: pytest.CaptureFixture[str]
) -> None:
    assert usage_error(["sned"], capsys) == (
        "kotak: there is no command 'sned'; did you mean send?\n"
    )
    assert "did you mean serve?" in usage_error(["srve"], capsys)
    assert "kotak --help" in usage_error(["\x1b[2J"], capsys)
    assert client.ran == []


def test_the_help_names_every_command_and_every_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from clients import cli as real

    commands = argparse.ArgumentParser().add_subparsers()
    real.add_commands(commands)
    aliases = {"auth", "chat", "kotakmasuk", "user_on"}
    assert cli.main(["--help"]) == Exit.OK
    shown = capsys.readouterr().out
    for name in (set(commands.choices) - aliases) | {"text", "serve", "check-config"}:
        assert re.search(rf"^  {name}\b", shown, re.MULTILINE), f"--help does not list {name}"
    for code in Exit:
        assert f"  {code.value}   {code.sentence}\n" in shown


def test_the_version_is_the_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == Exit.OK
    assert re.fullmatch(r"kotak \d+\.\d+\.\d+\n", capsys.readouterr().out)


# --- the process ---------------------------------------------------------------------------------


def run_python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["check-config"]])
def test_what_needs_no_library_loads_none(words: list[str]) -> None:
    heavy = {"zmq", "msgpack", "rich", "prompt_toolkit", "argon2", "prometheus_client", "sqlite3"}
    program = (
        f"import sys; from broker.cli import main; main({words!r})\n"
        f"print(sorted(set(sys.modules) & {heavy!r}), file=sys.stderr)"
    )
    assert run_python(program).stderr == "[]\n"


def test_a_reader_that_leaves_early_gets_no_traceback() -> None:
    program = (
        "import os, sys; from broker.cli import main\n"
        "reader, writer = os.pipe(); os.close(reader); os.dup2(writer, 1)\n"
        "sys.exit(main(['--help']))"
    )
    ended = run_python(program)
    assert ended.stderr == ""
    assert ended.returncode == 141


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["serve", "--dmeo"], "kotak serve does not know '--dmeo'; did you mean --demo?"),
        (["serve", "extra"], "kotak serve does not know 'extra'"),
        (["user", "add", "ann", "--nmae", "Ann"], "'--nmae'; did you mean --name?"),
        (["watch", "--jsno"], "kotak watch does not know '--jsno'; did you mean --json?"),
        (["inbox", "--limit", "abc"], "give a number between 1 and"),
    ],
)
def test_a_wrong_option_is_answered_by_its_command(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err
