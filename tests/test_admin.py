"""broker.admin: ``kotak user``, from the command line down to the requests that it makes."""

from __future__ import annotations

import getpass
import io
import json
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import broker
from broker import cli
from broker.config import Config
from broker.exits import Exit, ExitError
from broker.wire.errors import Code, WireError


class FakeAdmin:
    """Keeps accounts in a dict; pages of two, so that paging is seen."""

    def __init__(self) -> None:
        self.users: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.busy = 0
        self.fails_at: str | None = None

    def request(self, command: str, args: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append((command, dict(args)))
        if self.busy:
            self.busy -= 1
            raise WireError(Code.BUSY, "too many passwords are being hashed", 1)
        answer: dict[str, Any] = getattr(self, "_" + command)(**args)
        return answer

    def _user_add(self, user: str, **args: Any) -> dict[str, Any]:
        if user == self.fails_at:
            raise WireError(Code.STORAGE_FULL, "the disk is full")
        if user in self.users:
            raise WireError(Code.USER_EXISTS, f"user {user} exists")
        name = args.get("name", user)
        self.users[user] = {"user": user, "name": name, "role": "user", "args": args}
        return {"user": user, "name": name}

    def _user_list(self, after: str = "") -> dict[str, Any]:
        rest = [u for name, u in sorted(self.users.items()) if name > after]
        shown = [{"user": u["user"], "name": u["name"], "role": u["role"]} for u in rest[:2]]
        return {"users": shown, "more": len(rest) > 2}

    def _user_passwd(self, user: str, password: str) -> dict[str, Any]:
        self._known(user)["args"] = {"password": password}
        return {}

    def _user_role(self, user: str, role: str) -> dict[str, Any]:
        self._known(user)["role"] = role
        return {}

    def _user_remove(self, user: str) -> dict[str, Any]:
        del self.users[self._known(user)["user"]]
        return {}

    def _known(self, user: str) -> dict[str, Any]:
        if user not in self.users:
            raise WireError(Code.NO_SUCH_USER, f"there is no user {user}")
        return self.users[user]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeAdmin:
    made = FakeAdmin()
    opened: list[Path] = []

    @contextmanager
    def open_admin(config: Config, *, create: bool) -> Iterator[FakeAdmin]:
        opened.append(config.data)
        yield made

    server = types.ModuleType("broker.server")
    server.open_admin = open_admin  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "broker.server", server)
    monkeypatch.setattr(broker, "server", server, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("KOTAK_CONFIG", raising=False)
    return made


def type_in(monkeypatch: pytest.MonkeyPatch, content: str | bytes) -> None:
    raw = content.encode() if isinstance(content, str) else content
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))


def sit_at_a_terminal(monkeypatch: pytest.MonkeyPatch, *answers: str) -> None:
    """Make stdin a terminal on which these answers are typed; passwords through getpass."""
    rest = iter(answers)
    terminal = io.StringIO("".join(answers))
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdin", terminal)
    monkeypatch.setattr(getpass, "getpass", lambda prompt: next(rest))


def user(*words: str) -> int:
    return cli.main(["user", *words])


# --- add and passwd ----------------------------------------------------------------------------


def test_add_takes_the_password_from_the_first_line_of_stdin(
    fake: FakeAdmin, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    type_in(monkeypatch, " p w \r\nanother line\n")
    assert user("add", "ana", "--name", "Ana B", "--password-stdin") == Exit.OK
    assert fake.users["ana"]["args"] == {"password": " p w ", "name": "Ana B"}
    assert capsys.readouterr().out == "added ana\n"


def test_add_takes_the_password_from_a_variable(
    fake: FakeAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANAS", "secret")
    assert user("add", "ana", "--password-env", "ANAS") == Exit.OK
    assert fake.users["ana"]["args"] == {"password": "secret"}


def test_at_a_terminal_the_password_is_asked_for_twice(
    fake: FakeAdmin, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sit_at_a_terminal(monkeypatch, "one", "two")
    assert user("add", "ana") == Exit.USAGE
    assert "differ" in capsys.readouterr().err
    assert fake.asked == []
    sit_at_a_terminal(monkeypatch, "one", "one")
    assert user("add", "ana") == Exit.OK


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "use --password-stdin or --password-env"),
        (["--password-stdin"], "stdin holds no password"),
        (["--password-env", "NOT_SET"], "the variable NOT_SET holds no password"),
    ],
)
def test_without_a_password_nothing_is_asked_of_the_broker(
    fake: FakeAdmin,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    type_in(monkeypatch, "")
    assert user("add", "ana", *words) == Exit.USAGE
    assert said in capsys.readouterr().err
    assert fake.asked == []


def test_no_option_takes_a_password_from_the_command_line(fake: FakeAdmin) -> None:
    for words in (["add", "ana", "--password", "x"], ["add", "ana", "x"]):
        with pytest.raises(SystemExit) as stop:
            user(*words)
        assert stop.value.code == Exit.USAGE
    assert fake.asked == []


def test_a_refusal_is_one_sentence_and_exit_code_1(
    fake: FakeAdmin, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PW", "secret")
    assert user("passwd", "nobody", "--password-env", "PW") == Exit.REFUSED
    assert capsys.readouterr().err == "kotak: there is no user nobody\n"
    assert fake.users == {}


def test_passwd_says_that_the_sessions_end(
    fake: FakeAdmin, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.request("user_add", {"user": "ana", "password": "old"})
    type_in(monkeypatch, "new\n")
    assert user("passwd", "ana", "--password-stdin") == Exit.OK
    assert fake.users["ana"]["args"] == {"password": "new"}
    assert "sessions have ended" in capsys.readouterr().out


# --- role --------------------------------------------------------------------------------------


def test_role_says_what_a_user_may_do_and_list_shows_it(
    fake: FakeAdmin, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.request("user_add", {"user": "ana", "password": "x"})
    assert user("role", "ana", "observer") == Exit.OK
    assert capsys.readouterr().out == "ana has the role observer now\n"
    user("list")
    assert capsys.readouterr().out == "ana\tana\tobserver\n"
    assert user("role", "nobody", "admin") == Exit.REFUSED


def test_a_role_that_there_is_not_is_a_wrong_usage(
    fake: FakeAdmin, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        user("role", "ana", "root")
    assert stop.value.code == Exit.USAGE
    assert "'user', 'admin', 'observer'" in capsys.readouterr().err
    assert fake.asked == []


# --- remove ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "left"), [("y\n", 0), ("YES\n", 0), ("n\n", 1), ("", 1)])
def test_remove_asks_at_a_terminal_and_only_yes_removes(
    fake: FakeAdmin, monkeypatch: pytest.MonkeyPatch, answer: str, left: int
) -> None:
    fake.request("user_add", {"user": "ana", "password": "x"})
    sit_at_a_terminal(monkeypatch, answer)
    assert user("remove", "ana") == (Exit.REFUSED if left else Exit.OK)
    assert len(fake.users) == left


def test_remove_without_a_terminal_needs_yes(
    fake: FakeAdmin, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.request("user_add", {"user": "ana", "password": "x"})
    type_in(monkeypatch, "y\n")
    assert user("remove", "ana") == Exit.USAGE
    assert "--yes" in capsys.readouterr().err
    assert user("remove", "ana", "--yes") == Exit.OK
    assert fake.users == {}


# --- list --------------------------------------------------------------------------------------


def test_list_reads_all_pages_and_is_tab_separated_without_a_terminal(
    fake: FakeAdmin, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(5):
        fake.request("user_add", {"user": f"u{n}", "password": "x", "name": f"Name {n}\x1b[2J"})
    assert user("list") == Exit.OK
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"u{n}\tName {n}\\x1b[2J\tuser" for n in range(5)]


def test_list_json_is_one_array(fake: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    fake.request("user_add", {"user": "ana", "password": "x"})
    assert user("list", "--json") == Exit.OK
    assert json.loads(capsys.readouterr().out) == [{"user": "ana", "name": "ana", "role": "user"}]


def test_list_is_a_table_at_a_terminal_and_names_are_no_markup(
    fake: FakeAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    user("list")
    assert "No users yet" in terminal.getvalue()
    fake.request("user_add", {"user": "ana", "password": "x", "name": "[red]Ana\x07"})
    user("list")
    assert "[red]Ana\\x07" in terminal.getvalue()


# --- import ------------------------------------------------------------------------------------


def test_import_adds_all_lines_and_sums_up(
    fake: FakeAdmin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.request("user_add", {"user": "budi", "password": "old"})
    file = tmp_path / "users"
    file.write_text("# users\nana:x:Ana\nbudi:new\n")
    assert user("import", str(file)) == Exit.OK
    out, err = capsys.readouterr()
    assert out == "added 1, existed already 1, of 2\n"
    assert err == "kotak: budi exists already; left as it is\n"
    assert fake.users["budi"]["args"] == {"password": "old"}


def test_import_with_a_bad_line_adds_nobody_and_names_the_line(
    fake: FakeAdmin, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    type_in(monkeypatch, "ana:canary\nBudi:canary\n" + "x\n" * 50)
    assert user("import", "-") == Exit.USAGE
    err = capsys.readouterr().err
    assert "line 2: " in err
    assert "... and 31 more" in err
    assert "51 bad lines: no user was added" in err
    assert "canary" not in err
    assert fake.asked == []


def test_import_waits_while_the_broker_is_busy(fake: FakeAdmin, tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text("ana:x\n")
    fake.busy = 3
    assert user("import", str(file)) == Exit.OK
    assert "ana" in fake.users


def test_import_that_breaks_off_says_where_and_how_to_go_on(
    fake: FakeAdmin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "users"
    file.write_text("ana:x\nbudi:x\n")
    fake.fails_at = "budi"
    assert user("import", str(file)) == Exit.REFUSED
    err = capsys.readouterr().err
    assert "line 2: the disk is full" in err
    assert "added 1 users before that; run it again" in err


def test_import_of_a_missing_file_says_so(
    fake: FakeAdmin, capsys: pytest.CaptureFixture[str]
) -> None:
    assert user("import", "/nowhere/users") == Exit.USAGE
    assert "cannot read /nowhere/users: No such file" in capsys.readouterr().err
    assert fake.asked == []


def test_a_long_import_shows_a_bar_at_a_terminal_and_only_there(
    fake: FakeAdmin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("broker.admin.printing.PROGRESS_AFTER_S", -1.0)
    monkeypatch.setenv("TERM", "xterm")
    file = tmp_path / "users"
    for round_, (is_terminal, shown) in enumerate([(True, True), (False, False)]):
        file.write_text(f"a{round_}:x\nb{round_}:x\n")
        stream = io.StringIO()
        stream.isatty = lambda answer=is_terminal: answer  # type: ignore[method-assign, misc]
        monkeypatch.setattr(sys, "stderr", stream)
        assert user("import", str(file)) == Exit.OK
        assert ("Adding users" in stream.getvalue()) is shown
    assert len(fake.users) == 4


def test_an_unusable_data_folder_ends_with_its_own_exit_code(
    fake: FakeAdmin, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(config: Config, *, create: bool) -> None:
        raise ExitError(Exit.DATA_FOLDER, f"{config.data} is not ours")

    monkeypatch.setattr(sys.modules["broker.server"], "open_admin", refuse)
    assert user("list", "--data", "/x") == Exit.DATA_FOLDER
    assert capsys.readouterr().err == "kotak: /x is not ours\n"
    assert fake.asked == []
