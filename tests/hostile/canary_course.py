"""The run with canaries: a broker's lives, what happens in each, and what is left at the end."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from broker.wire.keyfile import parse_keys
from clients.curve_keys import Curve, read_curve
from clients.prompt import SafeHistory
from tests.canaries import Canaries, Kind
from tests.e2e.terminal import Terminal
from tests.hostile.canary_doors import (
    ZmqDoor,
    browse,
    converse,
    lines,
    speak,
    speak_plainly_where_tls_is,
    trusting,
)
from tests.hostile.canary_evidence import (
    Evidence,
    Watched,
    add_database,
    add_files,
    eventually,
)
from tests.hostile.canary_faulty import FAULT
from tests.hostile.canary_requests import Asked

_READY: Final = re.compile(rb"^ready zmq=(\S+) text=(\S+) http=(\S+)$", re.MULTILINE)
_GATEWAY_READY: Final = re.compile(rb"^ready text=(\S+) ", re.MULTILINE)
#: What is left in each folder of a run, and in the files of the data folder.
_FOLDERS: Final = {
    "sessions": "session files",
    "keys": "key files",
    "cwd": "core dumps",
    "home": "home folder",
}
_FILES: Final = {
    "audit.log": "audit log",
    "kotak.db": "database files, raw",
    "kotak.journal": "journal, raw",
    "admin.json": "admin.json",
}
_OTHERS: Final = "other files of the data folder"
#: Where the broker looks for keys and sessions is where nobody else does.
_PRIVATE: Final = 0o700


class Life(NamedTuple):
    """A running broker, and where its doors are."""

    process: Watched
    zmq: str
    text: tuple[str, int]
    http: tuple[str, int]
    #: As `kotak --curve` takes it; empty where the door does not encrypt.
    curve: str


class Course:
    """One run in an empty folder. ``show`` is told what is being done."""

    def __init__(self, folder: Path, show: Callable[[str], None]) -> None:
        folder.chmod(_PRIVATE)
        self._folder, self._show = folder, show
        self.canaries = Canaries()
        self.evidence = Evidence(self.canaries)
        self._data, self._home = folder / "data", folder / "home"
        for each in ("home", "sessions", "keys", "cwd"):
            (folder / each).mkdir(mode=_PRIVATE)
        self._env = {"PATH": os.environ["PATH"], "HOME": str(self._home), "TERM": "xterm"}
        self._people = {
            user: self.canaries.make(Kind.PASSWORD, f"{user}'s") for user in ("siti", "budi")
        }

    def run(self) -> Evidence:
        """Live all lives and return what came out of them."""
        self._show("accounts and keys")
        self._make_keys()
        self._make_accounts()
        encrypted = ["--curve-key", self._key("broker"), "--register", "--log-level", "debug"]
        encrypted += ["--tls-cert", self._key("cert.pem"), "--tls-key", self._key("tls")]
        plain = ["--log-json", "--register", "--log-level", "debug"]
        with self._life(*encrypted, curve=self._key("broker") + ".pub") as life:
            self._live(life, "curve")
        with self._life(*plain, log="broker's log, JSON") as life:
            self._live(life, "plain")
        self._live_with_faults()
        self._live_with_a_failing_disk()
        self._collect()
        return self.evidence

    # --- Before ------------------------------------------------------------------------------

    def _key(self, name: str) -> str:
        return str(self._folder / "keys" / name)

    def _make_keys(self) -> None:
        self._kotak("keygen", self._key("broker"))
        self._kotak("keygen", self._key("siti"), "--broker", self._key("broker") + ".pub")
        for name in ("broker", "siti"):
            secret = parse_keys(Path(self._key(name)).read_text()).secret
            assert secret
            self.canaries.know(Kind.KEY, f"the secret key of {name}", secret)
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"),
                *("ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
                *("-addext", "subjectAltName=DNS:localhost"),
                *("-keyout", self._key("tls"), "-out", self._key("cert.pem")),
            ],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        Path(self._key("tls")).chmod(0o600)
        for line in Path(self._key("tls")).read_text().splitlines()[1:-1]:
            if len(line) >= 16:
                self.canaries.know(Kind.KEY, "the TLS key", line)

    def _make_accounts(self) -> None:
        """By the administrator's commands, on a folder that no broker holds."""
        secret, data = self._secret, ("--data", str(self._data))
        self._kotak("user", "add", "siti", "--password-stdin", *data, typed=self._people["siti"])
        by_variable = {"NEW": self._people["budi"]}
        self._kotak("user", "add", "budi", "--password-env", "NEW", *data, env=by_variable)
        again = secret("user add, twice")
        self._kotak("user", "add", "siti", "--password-stdin", *data, typed=again, fails=True)
        good = f"tono:{secret('user import')}:Tono\n"
        self._kotak("user", "import", "-", *data, typed=good)
        bad = f"wati {secret('no colon')}\n:{secret('no user')}:x\nA!:{secret('no name')}:x:y:z\n"
        self._kotak("user", "import", "-", *data, typed=bad, fails=True)
        self._kotak(
            "user", "passwd", "tono", "--password-stdin", *data, typed=secret("user passwd")
        )
        key = self._key("siti") + ".pub"
        self._kotak("user", "key", "add", "siti", key, *data)

    def _secret(self, name: str, kind: Kind = Kind.PASSWORD) -> str:
        return self.canaries.make(kind, f"kotak: {name}")

    def _kotak(
        self,
        *words: str,
        typed: str = "",
        env: Mapping[str, str] | None = None,
        fails: bool = False,
        out: str = "commands' output",
    ) -> None:
        """Run one command line to its end."""
        command = Watched(
            self.evidence, *words, out=out, err="commands' errors",
            env={**self._env, **(env or {})}, folder=self._folder / "cwd",
        )  # fmt: skip
        code = command.end(f"{typed}\n".encode())
        assert (code != 0) == fails, f"kotak {words[:2]}: {code} {command.said[1].decode()}"

    # --- Lives -------------------------------------------------------------------------------

    @contextmanager
    def _life(
        self,
        *options: str,
        log: str = "broker's log, text",
        curve: str = "",
        module: str = "broker.cli",
        env: Mapping[str, str] | None = None,
    ) -> Iterator[Life]:
        doors = ("--zmq", "tcp://127.0.0.1:0", "--text", "127.0.0.1:0", "--http", "127.0.0.1:0")
        broker = Watched(
            self.evidence, "serve", "--data", str(self._data), *doors, *options,
            out="broker's output", err=log, module=module,
            env={**self._env, **(env or {})}, folder=self._folder / "cwd",
        )  # fmt: skip
        # As in the service unit: of a core dump nothing could be kept secret.
        resource.prlimit(broker.process.pid, resource.RLIMIT_CORE, (0, 0))
        try:
            zmq, text, http = (each.decode() for each in broker.wait_for(_READY).groups())
            yield Life(broker, zmq, _address(text), _address(http), curve)
        finally:
            with suppress(ProcessLookupError):
                broker.process.terminate()
            broker.end()

    def _live(self, life: Life, name: str) -> None:
        """Go through every door of a broker."""
        self._show(f"{name}: every command")
        encrypted = bool(life.curve)
        admin = (self._data / "admin.json").read_bytes()
        self.evidence.add("admin.json", admin, own=_own(admin, self.canaries))
        with ZmqDoor(self.evidence, life.zmq, _curve(life)) as door:
            door.tokens["admin"] = _token(admin)
            converse(door, self.canaries, self._people, name)
        self._show(f"{name}: lines and pages")
        tls = trusting(Path(self._key("cert.pem"))) if encrypted else None
        half = f"login siti {self._secret(f'unfinished, {name}')}".encode()
        said = lines(self.canaries, self._people, name)
        speak(self.evidence, life.text, said, tls, half)
        if encrypted:
            speak_plainly_where_tls_is(self.evidence, life.text, half)
        browse(self.evidence, life.http, self.canaries, name)
        self._show(f"{name}: the command line")
        self._use_the_command_line(life, name)
        self._use_the_chats(life, name)
        self._use_a_terminal(life, name)
        self._use_a_gateway(life, name)
        os.kill(life.process.process.pid, signal.SIGHUP)

    def _use_the_command_line(self, life: Life, name: str) -> None:
        session = ("--session", str(self._folder / "sessions" / f"{name}.json"))
        way = (
            "--broker",
            life.zmq,
            "--timeout",
            "20",
            *(("--curve", life.curve) if life.curve else ()),
        )
        stdin, secret = ("--password-stdin",), self._secret
        mine = self._people["siti"]
        wrong, unknown = secret(f"wrong, {name}"), secret(f"unknown user, {name}")
        self._kotak("login", "siti", *session, *way, *stdin, typed=wrong, fails=True)
        self._kotak("login", unknown[:16].lower(), *session, *way, *stdin, typed=mine, fails=True)
        self._kotak("login", "siti", *session, *way, *stdin, typed=mine)
        self._kotak("send", "budi", secret(f"send, {name}", Kind.BODY), *session)
        self._kotak("send", "budi", "-", *session, typed=secret(f"send -, {name}", Kind.BODY))
        lost = secret(f"send to nobody, {name}", Kind.BODY)
        self._kotak("send", "nobody", "-", *session, typed=lost, fails=True)
        for words in (["whoami"], ["who"], ["history", "--sent"], ["room", "list"], ["inbox"]):
            self._kotak(*words, *session)
        both = f"{secret(f'wrong old, {name}')}\n{secret(f'new, {name}')}"
        new = ("--new-password-stdin",)
        self._kotak("passwd", *session, *stdin, *new, typed=both, fails=True)
        password = secret(f"register, {name}")
        self._kotak("register", f"by-hand-{name}", *way, *stdin, typed=password)
        kept = self._folder / "sessions" / f"{name}.json"
        add_files(self.evidence, "session files", [kept])
        if life.curve:
            with_key = ("--session", str(self._folder / "sessions/key.json"), "--broker", life.zmq)
            self._kotak("login", "siti", *with_key, "--curve", self._key("siti"))
        self._kotak("logout", *session)
        self._kotak("inbox", *session, fails=True)

    def _use_the_chats(self, life: Life, name: str) -> None:
        """By a pipe; a terminal's history is asked for what it would have kept."""
        secret, mine = self._secret, self._people["siti"]
        body = secret(f"typed, {name}", Kind.BODY)
        typed = [
            f"login siti {secret(f'typed wrongly, {name}')}",
            f"lgin siti {secret(f'mistyped, {name}')}",
            secret(f"typed alone, {name}"),
            f"auth siti {mine}",
            f"chat budi {body}",
            f"chat nobody {body}",
            "kotakmasuk",
            "logout",
        ]
        way = ("--broker", life.zmq, *(("--curve", life.curve) if life.curve else ()))
        self._kotak(*way, typed="\n".join(typed), fails=True)
        where = f"localhost:{life.text[1]}" if life.curve else f"127.0.0.1:{life.text[1]}"
        tls = ("--ca", self._key("cert.pem")) if life.curve else ()
        words = ("text", where, *tls)
        self._kotak(*words, typed="\n".join(typed), fails=True, out="kotak text's output")
        history = SafeHistory()
        for line in typed:
            history.append_string(line)
        self.evidence.add("history of the chats", "\n".join(history.get_strings()))

    def _use_a_terminal(self, life: Life, name: str) -> None:
        """The chat of a person: what stands on the screen, and what is left at home."""
        body = self._secret(f"typed at a terminal, {name}", Kind.BODY)
        curve = ("--curve", life.curve) if life.curve else ()
        terminal = Terminal(self._env, "--broker", life.zmq, *curve)
        try:
            terminal.read_until("Command")
            terminal.type("login siti\r")
            terminal.read_until("Password:")
            terminal.type(f"{self._people['siti']}\r")
            terminal.read_until("logged in")
            terminal.type(f"chat budi {body}\r")
            terminal.read_until("message sent")
            terminal.leave("quit\r")
        finally:
            terminal.close()
            self.evidence.add("commands' output", terminal.seen)

    def _use_a_gateway(self, life: Life, name: str) -> None:
        place = "gateway's log and output"
        curve = ("--curve", life.curve) if life.curve else ()
        gateway = Watched(
            self.evidence, "gateway", "text", "--broker", life.zmq, *curve,
            "--text", "127.0.0.1:0", "--log-level", "debug", "--log-json",
            out=place, err=place, env=self._env, folder=self._folder / "cwd",
        )  # fmt: skip
        try:
            address = _address(gateway.wait_for(_GATEWAY_READY)[1].decode())
            said = lines(self.canaries, self._people, f"{name}, gateway")
            speak(self.evidence, address, said, None, b"")
        finally:
            gateway.process.terminate()
            gateway.end()

    def _live_with_faults(self) -> None:
        """Errors that quote what they were given, and the end by a crash in the midst of it."""
        self._show("faults")
        place, module = "log and crash dump of a faulty broker", "tests.hostile.canary_faulty"
        token = self._token_of_budi()
        abort = {"PYTHONFAULTHANDLER": "1"}
        with (
            self._life("--register", log=place, module=module, env=abort) as life,
            ZmqDoor(self.evidence, life.zmq, None) as door,
        ):
            door.tokens["budi"] = token
            for asked in self._faults():
                door.ask(asked)
            said = [f"login budi {self._people['budi']} ".encode()]
            speak(self.evidence, life.text, said, None, b"")
            life.process.process.send_signal(signal.SIGABRT)
            eventually(lambda: life.process.process.poll() is not None)

    def _faults(self) -> Iterator[Asked]:
        secret = self._secret
        body = f"{FAULT}{secret('a body that a fault quotes', Kind.BODY)}"
        yield Asked("login", "", {"user": "siti", "password": self._people["siti"]})
        yield Asked("register", "", {"user": "late", "password": secret("register, faulty")})
        change = {"password": self._people["budi"], "new_password": secret("passwd, faulty")}
        yield Asked("passwd", "budi", change)
        yield Asked("chat", "budi", {"to": "siti", "text": body, "id": "1"})
        yield Asked("send", "budi", {"to": "siti", "text": body, "id": "2"})

    def _token_of_budi(self) -> str:
        """Return a token from a life that ends by a kill, with a message on its way."""
        body = self._secret("on its way when the broker is killed", Kind.BODY)
        with (
            self._life("--log-level", "debug") as life,
            ZmqDoor(self.evidence, life.zmq, None) as door,
        ):
            right = {"user": "budi", "password": self._people["budi"]}
            assert door.ask(Asked("login", "", right))
            door.ask(Asked("chat", "budi", {"to": "siti", "text": body, "id": "killed"}))
            life.process.process.kill()
            return door.tokens["budi"]

    def _live_with_a_failing_disk(self) -> None:
        self._show("a disk that fails")
        token = self._token_of_budi()
        with (
            self._life("--log-level", "debug") as life,
            ZmqDoor(self.evidence, life.zmq, None) as door,
        ):
            door.tokens["budi"] = token
            # Every write into a file fails from here on.
            resource.prlimit(life.process.process.pid, resource.RLIMIT_FSIZE, (0, 0))
            body = self._secret("to a disk that fails", Kind.BODY)
            door.ask_in_vain(Asked("chat", "budi", {"to": "siti", "text": body, "id": "failing"}))
            wrong = self._secret("to a disk that fails")
            door.ask_in_vain(Asked("login", "", {"user": "siti", "password": wrong}))
            eventually(lambda: life.process.process.poll() is not None)

    # --- After -------------------------------------------------------------------------------

    def _collect(self) -> None:
        """Keep every file that is left."""
        self._show("what is left")
        files = [path for path in self._folder.rglob("*") if path.is_file()]
        for path in files:
            add_files(self.evidence, self._place_of(path), [path])
        for kind, databases in (
            ("database", [self._data / "kotak.db"]),
            ("backups", (self._data / "backups").glob("*")),
        ):
            for database in databases:
                copy = self._folder / "looked-at"  # reading it would tidy its log away
                for suffix in ("", "-wal"):
                    with suppress(FileNotFoundError):
                        shutil.copy(f"{database}{suffix}", f"{copy}{suffix}")
                add_database(self.evidence, kind, copy)
                for suffix in ("", "-wal", "-shm"):
                    Path(f"{copy}{suffix}").unlink(missing_ok=True)

    def _place_of(self, path: Path) -> str:
        parts, name = path.relative_to(self._folder).parts, path.name
        if parts[0] != self._data.name:
            return _FOLDERS[parts[0]]
        if "backups" in parts:
            return "backups, raw"
        return next((place for start, place in _FILES.items() if name.startswith(start)), _OTHERS)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def _curve(life: Life) -> Curve | None:
    return read_curve(life.curve) if life.curve else None


def _admin(content: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(content)
    return found


def _token(admin: bytes) -> str:
    return str(_admin(admin)["token"])


def _own(admin: bytes, canaries: Canaries) -> list[bytes]:
    """Return the secrets that `admin.json` is there for, and look for them everywhere else."""
    found = _admin(admin)
    canaries.know(Kind.TOKEN, "the administrator's token", found["token"])
    own = [found["token"]]
    if found.get("curve"):
        canaries.know(Kind.KEY, "the administrator's key", found["curve"]["secret"])
        own.append(found["curve"]["secret"])
    return [each.encode() for each in own]
