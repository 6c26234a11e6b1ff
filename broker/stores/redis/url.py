"""The URL of a Redis store: which servers, under which prefix, and what is asked of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from broker.core.ports import StoreUnusableError

#: Scheme to (cluster, TLS).
SCHEMES: Final = {
    "redis": (False, False),
    "rediss": (False, True),
    "redis+cluster": (True, False),
    "rediss+cluster": (True, True),
}
_PORT: Final = 6379
_PREFIX: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisUrl:
    """``scheme://[user[:password]@]host[:port][,host[:port]...][?options]``, taken apart.

    Options: ``prefix`` of all keys (``kotak``); ``replicas``, how many must have confirmed a batch
    (0); ``allow_memory=yes``: go on with a server that keeps nothing on a disk; ``timeout_ms`` of
    one answer (5 000).
    """

    hosts: tuple[tuple[str, int], ...]
    cluster: bool
    tls: bool
    username: str | None = None
    password: str | None = None
    prefix: str = "kotak"
    replicas: int = 0
    allow_memory: bool = False
    timeout_ms: int = 5_000

    def __repr__(self) -> str:  # no password in a log
        return f"RedisUrl({self.hosts[0][0]}:{self.hosts[0][1]}, prefix={self.prefix!r})"


def parse_url(url: str) -> RedisUrl:
    """Take a URL apart. Errors: `StoreUnusableError`, whose text never quotes the password."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise StoreUnusableError(f"a Redis store begins with one of {', '.join(SCHEMES)}://")
    if parts.path.strip("/") or parts.fragment:
        raise StoreUnusableError("a Redis store's URL has no path: name a prefix by ?prefix=NAME")
    cluster, tls = SCHEMES[parts.scheme]
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = options.keys() - {"prefix", "replicas", "allow_memory", "timeout_ms"}
    if unknown:
        raise StoreUnusableError(
            f"a Redis store has no option {min(unknown)!r}:"
            " there are prefix, replicas, allow_memory and timeout_ms"
        )
    hosts = _hosts(parts)
    if len(hosts) > 1 and not cluster:
        raise StoreUnusableError("several servers are a cluster: begin with redis+cluster://")
    prefix = options.get("prefix", "kotak")
    if not _PREFIX.fullmatch(prefix):
        raise StoreUnusableError("the prefix of a Redis store has up to 64 letters, digits or _.:-")
    return RedisUrl(
        hosts=hosts,
        cluster=cluster,
        tls=tls,
        username=_unquoted(parts.username),
        password=_unquoted(parts.password),
        prefix=prefix,
        replicas=_number(options, "replicas", 0, 0, 100),
        allow_memory=_flag(options, "allow_memory"),
        timeout_ms=_number(options, "timeout_ms", 5_000, 100, 600_000),
    )


def _unquoted(text: str | None) -> str | None:
    return unquote(text) if text else None


def _hosts(parts: SplitResult) -> tuple[tuple[str, int], ...]:
    found = [_host(each) for each in parts.netloc.rpartition("@")[2].split(",")]
    return tuple(found)


def _host(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port or _PORT
    except ValueError:
        host, port = None, 0
    if not host:
        raise StoreUnusableError(f"{text!r} in the store's URL is no host:port")
    return host, port


def _number(options: dict[str, str], name: str, default: int, low: int, high: int) -> int:
    text = options.get(name, str(default))
    if not text.isdecimal() or not low <= int(text) <= high:
        raise StoreUnusableError(f"the store's option {name} is a number from {low} to {high}")
    return int(text)


def _flag(options: dict[str, str], name: str) -> bool:
    text = options.get(name, "no")
    if text not in {"yes", "no"}:
        raise StoreUnusableError(f"the store's option {name} is yes or no")
    return text == "yes"
