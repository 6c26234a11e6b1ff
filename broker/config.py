"""Every setting of the broker, once: name, default, bounds, unit and help stand in `Config`.

A setting ``workers`` is the key ``workers`` of the TOML file, the variable ``KOTAK_WORKERS`` and
the flag ``--workers``; a later one of these three wins. A mistake ends in one `ConfigError` whose
sentence names the source, the setting, the value and what is allowed.
"""

# ruff: noqa: RUF009 - _setting() returns a dataclass field, as field() does

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, NamedTuple

from broker.setting_kinds import (
    ADDRESS,
    BOOLEAN,
    ENDPOINT,
    FILE,
    FOLDER,
    KEYS,
    STORE,
    Address,
    Kind,
    as_endpoint,
    endpoint_address,
    integer,
    one_of,
)
from broker.wire.limits import TEXT_BYTES_MAX

__all__ = [
    "SETTINGS",
    "Address",
    "Config",
    "ConfigError",
    "Loaded",
    "Setting",
    "default_data_folder",
    "load",
    "read_endpoint",
    "show",
]

_SECOND_MS: Final = 1_000
_HOUR_MS: Final = 3_600 * _SECOND_MS
_DAY_MS: Final = 24 * _HOUR_MS
_YEAR_MS: Final = 365 * _DAY_MS
_GIB: Final = 1_073_741_824

#: A configuration is a page, not a data set; a device or a log given by mistake is refused.
_FILE_BYTES_MAX: Final = 1_048_576
#: A bad value is shown, but not a whole file of it.
_SHOWN_CHARS_MAX: Final = 80
#: `KOTAK_` variables that are not settings: the clients' own, and the file's name.
_OTHER_VARIABLES: Final = frozenset(
    {"CONFIG", "BROKER", "USER", "PASSWORD", "TOKEN", "SESSION_FILE", "CURVE"}
)
_PREFIX: Final = "KOTAK_"


class ConfigError(Exception):
    """A setting is wrong. The text is one sentence for the person who wrote it."""


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

    data: Path = _setting(default_data_folder, FOLDER, _STORAGE, "where messages and accounts live")
    store: str = _setting(
        "sqlite:",
        STORE,
        _STORAGE,
        "the engine: sqlite: in the data folder, memory: which forgets at the end, or redis:// and "
        "the like, shared by many brokers",
    )
    zmq: str = _setting("tcp://127.0.0.1:8890", ENDPOINT, _DOORS, "the ZeroMQ door")
    text: Address | None = _setting(
        Address("127.0.0.1", 8889), ADDRESS, _DOORS, "the text door, or off"
    )
    http: Address | None = _setting(
        Address("127.0.0.1", 8891), ADDRESS, _DOORS, "metrics and health, or off"
    )
    curve_key: Path | None = _setting(
        None, FILE, _DOORS, "the key that the ZeroMQ door encrypts with, of kotak keygen; or off"
    )
    curve_clients: Path | str = _setting(
        "any", KEYS, _DOORS, "whose keys the encrypted ZeroMQ door admits; any: passwords decide"
    )
    tls_cert: Path | None = _setting(
        None, FILE, _DOORS, "the certificate (PEM, with its chain) of an encrypted text door"
    )
    tls_key: Path | None = _setting(None, FILE, _DOORS, "the key (PEM) of that certificate")
    insecure_public: bool = _setting(
        False, BOOLEAN, _DOORS, "serve other machines without encryption: all can be read"
    )
    demo: bool = _setting(
        False, BOOLEAN, _ACCOUNTS, "add the four users of the original service, passwords and all"
    )
    register: bool = _setting(False, BOOLEAN, _ACCOUNTS, "let anybody open an account")
    session_idle_ms: int = _setting(
        7 * _DAY_MS,
        integer(_SECOND_MS, 10 * _YEAR_MS),
        _ACCOUNTS,
        "a session unused for so long has ended",
    )
    session_max_ms: int = _setting(
        30 * _DAY_MS,
        integer(_SECOND_MS, 10 * _YEAR_MS),
        _ACCOUNTS,
        "a session as old as this has ended, used or not",
    )
    sessions_per_user_max: int = _setting(
        100,
        integer(1, 10_000),
        _ACCOUNTS,
        "sessions of one user; one more login ends the oldest",
    )
    presence_ms: int = _setting(
        60 * _SECOND_MS,
        integer(_SECOND_MS, _DAY_MS),
        _ACCOUNTS,
        "a user not heard for so long is not shown as connected",
    )
    login_failures_max: int = _setting(
        5,
        integer(0, 1_000),
        _ACCOUNTS,
        "wrong passwords for a user from one address before the next has to wait; 0: no limits",
    )
    login_address_failures_max: int = _setting(
        100,
        integer(1, 1_000_000),
        _ACCOUNTS,
        "... and for all users from one address at once; every 3 s it gets one back",
    )
    message_bytes_max: int = _setting(
        TEXT_BYTES_MAX, integer(1, TEXT_BYTES_MAX), _LIMITS, "the text of one message, in bytes"
    )
    mailbox_messages_max: int = _setting(
        1_000_000,
        integer(1, 100_000_000),
        _LIMITS,
        "unread messages a mailbox may hold, and messages kept of a room",
    )
    mailbox_bytes_max: int = _setting(
        _GIB, integer(TEXT_BYTES_MAX, 1_024 * _GIB), _LIMITS, "... and their text, in bytes"
    )
    send_rate_max: int = _setting(
        0,
        integer(0, 10_000_000),
        _LIMITS,
        "messages a second that one user may send in the long run; 0: no limit",
    )
    send_burst_max: int = _setting(
        1_000, integer(1, 10_000_000), _LIMITS, "... and at once, before that counts"
    )
    retention_read_ms: int = _setting(
        _DAY_MS,
        integer(_SECOND_MS, 10 * _YEAR_MS),
        _LIMITS,
        "how long acknowledged messages stay in the database",
    )
    retention_bytes_max: int = _setting(
        _GIB,
        integer(0, 1_024 * _GIB),
        _LIMITS,
        "text of acknowledged messages that stays, in bytes; above it the oldest go earlier",
    )
    retention_unread_ms: int = _setting(
        0, integer(0, 10 * _YEAR_MS), _LIMITS, "after how long unread messages expire; 0: never"
    )
    retention_room_ms: int = _setting(
        7 * _DAY_MS,
        integer(_SECOND_MS, 10 * _YEAR_MS),
        _LIMITS,
        "how long the messages of a room stay, read or not",
    )
    expiry_notices: bool = _setting(
        False, BOOLEAN, _LIMITS, "tell senders by a message what has expired unread"
    )
    dedup_ids_per_sender: int = _setting(
        10_000, integer(1, 10_000_000), _LIMITS, "message ids remembered for one sender"
    )
    dedup_ids_max: int = _setting(
        200_000, integer(1, 100_000_000), _LIMITS, "message ids remembered for all senders"
    )
    dedup_window_ms: int = _setting(
        _DAY_MS, integer(_SECOND_MS, _YEAR_MS), _LIMITS, "how long a message id is remembered"
    )
    text_connections_max: int = _setting(
        10_000, integer(1, 1_000_000), _LIMITS, "connections on the text door"
    )
    text_line_ms: int = _setting(
        10_000,
        integer(100, _HOUR_MS),
        _LIMITS,
        "the time a client of the text door may take to send one line",
    )
    workers: int = _setting(
        4, integer(2, 64), _RUNNING, "threads: one leads, the others hash passwords and follow"
    )
    memory_max_bytes: int = _setting(
        0,
        integer(0, 1_024 * _GIB),
        _RUNNING,
        "memory that the broker may take, in bytes; 0: nine tenths of what there is",
    )
    # A service manager's patience and ours: SIGTERM must be over within 5 s, drain included.
    drain_ms: int = _setting(
        3_000, integer(0, 4_000), _RUNNING, "the time that requests under way get at the end"
    )
    log_level: str = _setting(
        "info", one_of("debug", "info", "warning", "error"), _RUNNING, "the least that is logged"
    )
    log_json: bool = _setting(False, BOOLEAN, _RUNNING, "log JSON, one object a line")

    def exposures(self, doors: Collection[str] = ("zmq", "text", "http")) -> list[str]:
        """Return one sentence for each of the ``doors`` that exposes what it carries.

        Such a door can be reached from other machines and does not encrypt.
        """
        zmq = None if self.curve_key else endpoint_address(self.zmq)
        text = None if self.tls_cert else self.text
        return [
            f"{name} listens on {address}, beyond this machine, and without encryption: "
            f"{_EXPOSED[name]}"
            for name, address in (("zmq", zmq), ("text", text), ("http", self.http))
            if name in doors and address is not None and not address.is_loopback
        ]


#: What can be read on the way where a door does not encrypt, and the cure.
_EXPOSED: Final[Mapping[str, str]] = {
    "zmq": "passwords and messages can be read on the way. Set curve_key ('kotak keygen')",
    "text": "passwords and messages can be read on the way. Set tls_cert and tls_key",
    "http": "how much is going on can be read on the way. Put a proxy that encrypts before it",
}


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
    """Write a value of `Config` as the file, the environment and the flags accept it.

    But for a password in an address, which is not shown.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:_}"  # as TOML allows: the eye counts the digits
    return "off" if value is None else _without_password(str(value))


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
        return as_endpoint(value)
    except ValueError:
        raise ConfigError(f"{source} is {_shown(value)}, but must be {ENDPOINT.allowed}") from None


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
    except (ValueError, RecursionError):  # a number of thousands of digits, lists in lists in lists
        raise ConfigError(f"{path} is no configuration: it holds what no setting can be") from None
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
    text = _without_password(str(value))
    return repr(text if len(text) <= _SHOWN_CHARS_MAX else text[:_SHOWN_CHARS_MAX] + "...")


def _without_password(text: str) -> str:
    return re.sub(r"//.*@", "//***@", text, flags=re.DOTALL)


def _check_together(config: Config, sources: Mapping[str, str]) -> None:
    for name, other, given in (
        ("tls_cert", "tls_key", config.tls_cert is not None),
        ("tls_key", "tls_cert", config.tls_key is not None),
        # Whoever lists keys means them to be asked for.
        ("curve_clients", "curve_key", config.curve_clients != "any"),
    ):
        if given and getattr(config, other) is None:
            raise ConfigError(f"{name} ({sources[name]}) needs {other}, which is off")
    for low, high in (
        ("session_idle_ms", "session_max_ms"),
        ("dedup_ids_per_sender", "dedup_ids_max"),
        # The ids are read back from the messages themselves at the next start.
        ("dedup_window_ms", "retention_read_ms"),
        ("dedup_window_ms", "retention_room_ms"),
    ):
        if getattr(config, low) > getattr(config, high):
            raise ConfigError(
                f"{low} is {getattr(config, low)} ({sources[low]}), but must not be above "
                f"{high}, which is {getattr(config, high)} ({sources[high]})"
            )
