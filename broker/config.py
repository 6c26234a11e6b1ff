"""Every setting of the broker, once: name, default, bounds, unit and help stand in `Config`.

A setting ``workers`` is the key ``workers`` of the TOML file, the variable ``KOTAK_WORKERS`` and
the flag ``--workers``; a later one of these three wins. A mistake ends in one `ConfigError` whose
sentence names the source, the setting, the value and what is allowed.
"""

# ruff: noqa: RUF009 - _setting() returns a dataclass field, as field() does

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, NamedTuple

_SECOND_MS: Final = 1_000
_HOUR_MS: Final = 3_600 * _SECOND_MS
_DAY_MS: Final = 24 * _HOUR_MS
_YEAR_MS: Final = 365 * _DAY_MS

#: A configuration is a page, not a data set; a device or a log given by mistake is refused.
_FILE_BYTES_MAX: Final = 1_048_576
#: A bad value is shown, but not a whole file of it.
_SHOWN_CHARS_MAX: Final = 80
#: `KOTAK_` variables that are not settings: the clients' own, and the file's name.
_OTHER_VARIABLES: Final = frozenset(
    {"CONFIG", "BROKER", "USER", "PASSWORD", "TOKEN", "SESSION_FILE"}
)
_PREFIX: Final = "KOTAK_"
_HOST_PORT: Final = re.compile(
    r"(?:\[(?P<six>[^\[\]]+)\]|(?P<host>[^\[\]:/\s@]+)):(?P<port>\d{1,5})"
)
_WORDS: Final[Mapping[str, bool]] = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}


class ConfigError(Exception):
    """A setting is wrong. The text is one sentence for the person who wrote it."""


class Address(NamedTuple):
    """Where a TCP door listens; port 0 lets the system pick one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


# --- Kinds of value: what is accepted, as a sentence, and how it is read -----------------------


@dataclass(frozen=True, slots=True)
class Kind:
    """How a value is read (ValueError: not allowed), what is allowed, its placeholder in --help."""

    read: Callable[[object], Any]
    allowed: str
    form: str


def _integer(low: int, high: int) -> Kind:
    def read(value: object) -> int:
        if isinstance(value, str) and re.fullmatch(r"\d[\d_]{0,24}", value, re.ASCII):
            value = int(value)
        if type(value) is not int or not low <= value <= high:
            raise ValueError
        return value

    return Kind(read, f"an integer from {low} to {high}", "N")


def _read_boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _WORDS:
        return _WORDS[value.lower()]
    raise ValueError


def _one_of(*words: str) -> Kind:
    def read(value: object) -> str:
        if value not in words:
            raise ValueError
        return str(value)

    return Kind(read, " or ".join(f"'{word}'" for word in words), "|".join(words))


def _read_folder(value: object) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError:  # '~' of somebody who has no home
        raise ValueError from None


def _read_address(value: object) -> Address | None:
    if value == "off":
        return None
    match = _HOST_PORT.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match["port"]) > 65_535:
        raise ValueError
    if match["six"]:
        ipaddress.IPv6Address(match["six"])
    return Address(match["six"] or match["host"], int(match["port"]))


def _read_endpoint(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("tcp://"):
        raise ValueError
    address = _read_address(value.removeprefix("tcp://"))
    if address is None:
        raise ValueError
    return f"tcp://{address}"


_BOOLEAN: Final = Kind(_read_boolean, "true or false", "")
_FOLDER: Final = Kind(_read_folder, "the path of a folder", "FOLDER")
_ADDRESS: Final = Kind(
    _read_address, "HOST:PORT, [IPV6]:PORT (port 0 to 65535) or 'off'", "HOST:PORT"
)
_ENDPOINT: Final = Kind(_read_endpoint, "tcp://HOST:PORT (port 0 to 65535)", "tcp://HOST:PORT")


def default_data_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return ``$XDG_DATA_HOME/kotak``, or ``~/.local/share/kotak`` where that is not set.

    Errors: `ConfigError` for a user without a home folder.
    """
    base = Path(environ.get("XDG_DATA_HOME", ""))
    if base.is_absolute():  # the XDG rule: a relative path is to be ignored
        return base / "kotak"
    home = Path(environ.get("HOME", ""))
    try:
        return (home if home.is_absolute() else Path.home()) / ".local/share/kotak"
    except RuntimeError:
        raise ConfigError("there is no home folder to keep the data in: set 'data'") from None


# --- The settings ----------------------------------------------------------------------------


def _setting(default: Any, kind: Kind, group: str, text: str) -> Any:
    metadata = {"kind": kind, "group": group, "help": text}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


_STORAGE: Final = "storage"
_DOORS: Final = "doors"
_ACCOUNTS: Final = "accounts and sessions"
_LIMITS: Final = "limits"
_RUNNING: Final = "running"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the broker was told, checked. Units stand in the names; None is a door that is off."""

    data: Path = _setting(
        default_data_folder, _FOLDER, _STORAGE, "where messages and accounts live"
    )
    store: str = _setting(
        "sqlite:",
        _one_of("sqlite:", "memory:"),
        _STORAGE,
        "the engine: sqlite: in the data folder, or memory: which forgets at the end",
    )
    zmq: str = _setting("tcp://127.0.0.1:8890", _ENDPOINT, _DOORS, "the ZeroMQ door")
    text: Address | None = _setting(
        Address("127.0.0.1", 8889), _ADDRESS, _DOORS, "the text door, or off"
    )
    http: Address | None = _setting(
        Address("127.0.0.1", 8891), _ADDRESS, _DOORS, "metrics and health, or off"
    )
    demo: bool = _setting(
        False, _BOOLEAN, _ACCOUNTS, "add the four users of the original service, passwords and all"
    )
    register: bool = _setting(False, _BOOLEAN, _ACCOUNTS, "let anybody open an account")
    session_idle_ms: int = _setting(
        7 * _DAY_MS,
        _integer(_SECOND_MS, 10 * _YEAR_MS),
        _ACCOUNTS,
        "a session unused for so long has ended",
    )
    session_max_ms: int = _setting(
        30 * _DAY_MS,
        _integer(_SECOND_MS, 10 * _YEAR_MS),
        _ACCOUNTS,
        "a session as old as this has ended, used or not",
    )
    mailbox_messages_max: int = _setting(
        1_000_000, _integer(1, 100_000_000), _LIMITS, "unread messages a mailbox may hold"
    )
    retention_read_ms: int = _setting(
        _DAY_MS,
        _integer(_SECOND_MS, 10 * _YEAR_MS),
        _LIMITS,
        "how long acknowledged messages stay in the database",
    )
    dedup_ids_per_sender: int = _setting(
        10_000, _integer(1, 10_000_000), _LIMITS, "message ids remembered for one sender"
    )
    dedup_ids_max: int = _setting(
        200_000, _integer(1, 100_000_000), _LIMITS, "message ids remembered for all senders"
    )
    dedup_window_ms: int = _setting(
        _DAY_MS, _integer(_SECOND_MS, _YEAR_MS), _LIMITS, "how long a message id is remembered"
    )
    text_connections_max: int = _setting(
        10_000, _integer(1, 1_000_000), _LIMITS, "connections on the text door"
    )
    text_line_ms: int = _setting(
        10_000,
        _integer(100, _HOUR_MS),
        _LIMITS,
        "the time a client of the text door may take to send one line",
    )
    workers: int = _setting(
        4, _integer(2, 64), _RUNNING, "threads: one leads, the others hash passwords and follow"
    )
    # A service manager's patience and ours: SIGTERM must be over within 5 s, drain included.
    drain_ms: int = _setting(
        3_000, _integer(0, 4_000), _RUNNING, "the time that requests under way get at the end"
    )
    log_level: str = _setting(
        "info", _one_of("debug", "info", "warning", "error"), _RUNNING, "the least that is logged"
    )
    log_json: bool = _setting(False, _BOOLEAN, _RUNNING, "log JSON, one object a line")

    def warnings(self) -> list[str]:
        """Return one sentence for each door that others than this machine can reach.

        Such a door is allowed, since a tunnel or a firewall may guard it, but nothing on it is
        encrypted.
        """
        zmq = _read_address(self.zmq.removeprefix("tcp://"))
        doors = {"zmq": zmq, "text": self.text, "http": self.http}
        return [
            f"{name} listens on {address}, beyond this machine, and without encryption: "
            "passwords and messages can be read on the way"
            for name, address in doors.items()
            if address is not None and not _is_loopback(address.host)
        ]


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Setting(NamedTuple):
    """One row of the table: what the flags, the help and ``check-config`` are made of."""

    name: str
    kind: Kind
    group: str
    help: str
    default: Any

    @property
    def form(self) -> str:
        """The value's placeholder in --help; empty for a switch."""
        return "MS" if self.name.endswith("_ms") else self.kind.form

    @property
    def variable(self) -> str:
        return _PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


def _table() -> dict[str, Setting]:
    return {
        row.name: Setting(
            row.name,
            row.metadata["kind"],
            row.metadata["group"],
            row.metadata["help"],
            None if row.name == "data" else row.default,
        )
        for row in fields(Config)
    }


#: Every setting by its name, in the order of `Config`. ``data``'s default depends on the user.
SETTINGS: Final[Mapping[str, Setting]] = _table()


def show(value: object) -> str:
    """Write a value of `Config` as the file, the environment and the flags accept it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:_}"  # as TOML allows: the eye counts the digits
    return "off" if value is None else str(value)


# --- Reading ---------------------------------------------------------------------------------


class Loaded(NamedTuple):
    """The settings, and for each name where its value came from (``default`` among them)."""

    config: Config
    sources: dict[str, str]


def load(
    *, flags: Mapping[str, object], environ: Mapping[str, str], file: str | None = None
) -> Loaded:
    """Read all settings: the file, then the environment, then the flags; the last one wins.

    ``flags`` maps names to values as they were typed (or a bool); None means not given. ``file``
    defaults to ``KOTAK_CONFIG``. Errors: `ConfigError`.
    """
    values: dict[str, Any] = {"data": default_data_folder(environ)}
    sources = dict.fromkeys(SETTINGS, "default")
    file = file or environ.get(_PREFIX + "CONFIG")
    layers = [
        *([_from_file(Path(file))] if file else []),
        _from_environment(environ),
        [(SETTINGS[name].flag, name, value) for name, value in flags.items() if value is not None],
    ]
    for layer in layers:
        for source, name, value in layer:
            values[name] = _read(source, name, value)
            sources[name] = source
    config = Config(**values)
    _check_together(config, sources)
    return Loaded(config, sources)


def read_endpoint(value: str, *, source: str) -> str:
    """Check a broker's address that is no setting. Errors: `ConfigError` naming ``source``."""
    try:
        return _read_endpoint(value)
    except ValueError:
        raise ConfigError(f"{source} is {_shown(value)}, but must be {_ENDPOINT.allowed}") from None


_Layer = Iterable[tuple[str, str, object]]


def _from_file(path: Path) -> _Layer:
    try:
        with path.open("rb") as stream:
            content = stream.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > _FILE_BYTES_MAX:
        raise ConfigError(f"{path} is larger than 1 MiB: that is no configuration")
    try:
        found = tomllib.loads(content.decode())
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text: a configuration is a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    for name in found:
        if name not in SETTINGS:
            raise ConfigError(f"{path}: there is no setting {_shown(name)}{_suggest(name)}")
    return [(str(path), name, value) for name, value in found.items()]


def _from_environment(environ: Mapping[str, str]) -> _Layer:
    layer: list[tuple[str, str, object]] = []
    for variable, value in environ.items():
        name = variable.removeprefix(_PREFIX)
        if name == variable or name in _OTHER_VARIABLES:
            continue
        if name.lower() in SETTINGS and name.isupper():
            layer.append((variable, name.lower(), value))
        elif _close(name.lower()):
            # Others are left alone: container platforms set KOTAK_PORT and the like by themselves.
            raise ConfigError(f"there is no setting {variable}{_suggest(name.lower(), _PREFIX)}")
    return layer


def _close(name: str) -> list[str]:
    return difflib.get_close_matches(name, SETTINGS, n=1, cutoff=0.75)


def _suggest(name: str, prefix: str = "") -> str:
    close = _close(name)
    if not close:
        return "; 'kotak check-config' lists them all"
    return f"; did you mean {prefix + close[0].upper() if prefix else close[0]}?"


def _read(source: str, name: str, value: object) -> Any:
    kind = SETTINGS[name].kind
    try:
        return kind.read(value)
    except ValueError:
        # The flag and the variable name the setting already.
        place = source if source in (SETTINGS[name].flag, SETTINGS[name].variable) else None
        where = place or f"{source}: {name}"
        raise ConfigError(f"{where} is {_shown(value)}, but must be {kind.allowed}") from None


def _shown(value: object) -> str:
    """Quote a bad value for the error: bounded, on one line, without what stands before an @."""
    text = re.sub(r"//.*@", "//***@", str(value), flags=re.DOTALL)
    return repr(text if len(text) <= _SHOWN_CHARS_MAX else text[:_SHOWN_CHARS_MAX] + "...")


def _check_together(config: Config, sources: Mapping[str, str]) -> None:
    for low, high in (
        ("session_idle_ms", "session_max_ms"),
        ("dedup_ids_per_sender", "dedup_ids_max"),
        # The ids are read back from the messages themselves at the next start.
        ("dedup_window_ms", "retention_read_ms"),
    ):
        if getattr(config, low) > getattr(config, high):
            raise ConfigError(
                f"{low} is {getattr(config, low)} ({sources[low]}), but must not be above "
                f"{high}, which is {getattr(config, high)} ({sources[high]})"
            )
