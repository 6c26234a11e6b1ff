"""Small files as people write them, and nearly so: keys, accounts, sessions, configurations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Any, Final

from broker.config import SETTINGS
from tests.hostile.fuzz.grammar import KEYS

_ENDS: Final = ("\n", "\r\n", "\r", "\x0b", "\u2028", "")
_WORDS: Final = (
    *("shafwa", "mks", "Shafwa", "#", "", " ", ":", "::", "\ufeff", "\0", "a" * 65, "\u6f22"),
    *("$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$c29tZWhhc2g", "$argon2id$", "$argon2id$v=19$m=x$$"),
)
_VALUES: Final = (
    *("true", "false", "0", "1", "-1", "1_000", "9" * 30, "9" * 5_000, "1e9", "0x10", "nan"),
    *('"off"', '"any"', '"sqlite:"', '"memory:"', '"tcp://127.0.0.1:0"', '"tcp://[::1]:1"'),
    *('"127.0.0.1:1"', '"[::1]:99999"', '"tcp://*:1"', '"ipc:///x"', '"/x"', '"~/x"', '"\\u0000"'),
    *("[]", "{}", "[1, [2]]", "[" * 3_000, '"""x', "'x'", "1979-05-27", "", "\U0001f4ee"),
)
_JSON: Final = (
    *('"tcp://127.0.0.1:1"', '"kt_x"', '"x"', "1", "1.5", "-1", "null", "true", "[]", "{}"),
    *('{"server": "x"}', '{"public": "x", "secret": "x", "server": "x"}', "NaN", "[" * 3_000),
    *("9" * 5_000, '"\\ud800"', '"\\u0000"'),
)


def keys(rng: Random) -> bytes:
    """Make a key file, or a list of public keys."""
    lines: list[str] = []
    for _ in range(rng.randrange(6)):
        key = rng.choice((*KEYS, KEYS[0][1:], "\u00e4" * 40))
        name = rng.choice(("public-key", "secret-key", "server-key", "curve", "metadata"))
        forms = (f'    {name} = "{key}"', f"{name}='{key}", f"{key} shafwa", f"# {key}", key, name)
        lines.append(rng.choice(forms) + rng.choice(_ENDS))
    return "".join(lines).encode()


def accounts(rng: Random) -> bytes:
    """Make a list of accounts."""
    lines = [
        rng.choice((":", ":", "", " : ")).join(rng.choice(_WORDS) for _ in range(rng.randrange(5)))
        + rng.choice(_ENDS)
        for _ in range(rng.randrange(5))
    ]
    return "".join(lines).encode() + rng.choice((b"", b"", b"\xff\n", b"\xef\xbb\xbf"))


def admin(rng: Random) -> bytes:
    """Make what a broker leaves for its administrator."""
    return _object(rng, ("zmq", "token", "curve"))


def session(rng: Random) -> bytes:
    """Make what the command line keeps."""
    names = ("address", "user", "name", "token", "expires_at_ms", "device", "curve")
    if rng.random() < 0.3:
        good: dict[str, Any] = {**dict.fromkeys(names, "x"), "expires_at_ms": 1}
        return json.dumps(good).encode()
    return _object(rng, names)


def _object(rng: Random, names: Sequence[str]) -> bytes:
    pairs = [f'"{name}": {rng.choice(_JSON)}' for name in names if rng.random() < 0.9]
    whole = "{" + ", ".join(pairs) + "}"
    return (whole if rng.random() < 0.9 else rng.choice(_JSON)).encode()


def config(rng: Random) -> bytes:
    """Make a configuration in TOML."""
    names = (*SETTINGS, "no_such", "[table]", '"x y"', "a.b")
    lines = [
        f"{rng.choice(names)} = {rng.choice(_VALUES)}{rng.choice(_ENDS[:3])}"
        for _ in range(rng.randrange(1, 4))
    ]
    return "".join(lines).encode()


def as_environment(content: bytes) -> dict[str, str]:
    """Read ``name = value`` as variables of the environment: any text without a NUL."""
    environ = {"HOME": "/nowhere"}
    for line in content.decode(errors="surrogateescape").replace("\0", "").splitlines():
        name, _, value = line.partition("=")
        environ[f"KOTAK_{name.strip().upper()}"] = value.strip().strip("\"'")
    return environ
