"""The URL of a Redis store: which servers, under which prefix, and what is asked of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from broker.core.ports import StoreUnusableError

Address = tuple[str, int]

#: Scheme to (kind, TLS).
SCHEMES: Final = {
    "redis": ("", False),
    "rediss": ("", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
}
_PORT: Final = 6_379
_SENTINEL_PORT: Final = 26_379
_FORM: Final = re.compile(
    r"(?P<scheme>[a-z+]+)://(?:(?P<user>[^/?#:]*)(?::(?P<password>[^/?#]*))?@)?(?P<hosts>[^/?#@]*)"
    r"(?P<path>/[^?#]*)?(?:\?(?P<query>[^#]*))?"
)
_PREFIX: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisUrl:
    """``scheme://[user[:password]@]host[:port][,host[:port]...][/service][?options]``, taken apart.

    ``service`` is the name that sentinels know the primary by; ``hosts`` are theirs then. Options:
    ``prefix`` of all keys (``kotak``); ``replicas``, how many must have confirmed a batch (0);
    ``allow_memory=yes``: go on with a server that keeps nothing on a disk; ``timeout_ms`` of one
    answer (2 000).
    """

    hosts: tuple[Address, ...]
    cluster: bool
    tls: bool
    service: str = ""
    username: str | None = None
    password: str | None = None
    prefix: str = "kotak"
    replicas: int = 0
    allow_memory: bool = False
    timeout_ms: int = 2_000

    @property
    def where(self) -> str:
        """Which servers, for people; never a password."""
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        if self.service:
            return f"{self.service} of the sentinels {hosts}"
        return f"the cluster {hosts}" if self.cluster else hosts

    def __repr__(self) -> str:  # no password in a log
        return f"RedisUrl({self.where}, prefix={self.prefix!r})"


def parse_url(url: str) -> RedisUrl:
    """Take a URL apart. Errors: `StoreUnusableError`, whose text never quotes the password."""
    parts = _FORM.fullmatch(url)
    if parts is None or parts["scheme"] not in SCHEMES:
        raise StoreUnusableError(f"a Redis store begins with one of {', '.join(SCHEMES)}://")
    kind, tls = SCHEMES[parts["scheme"]]
    service = (parts["path"] or "").strip("/")
    if service and kind != "sentinel":
        raise StoreUnusableError("a Redis store's URL has no path: name a prefix by ?prefix=NAME")
    if kind == "sentinel" and not service:
        raise StoreUnusableError(
            "sentinels are asked for a primary by name: end with /NAME, as in their configuration"
        )
    port = _SENTINEL_PORT if kind == "sentinel" else _PORT
    hosts = tuple(_host(each, port) for each in parts["hosts"].split(","))
    options = dict(parse_qsl(parts["query"] or "", keep_blank_values=True))
    unknown = options.keys() - {"prefix", "replicas", "allow_memory", "timeout_ms"}
    if unknown:
        raise StoreUnusableError(
            f"a Redis store has no option {min(unknown)!r}:"
            " there are prefix, replicas, allow_memory and timeout_ms"
        )
    if len(hosts) > 1 and not kind:
        raise StoreUnusableError("several servers are a cluster: begin with redis+cluster://")
    prefix = options.get("prefix", "kotak")
    if not _PREFIX.fullmatch(prefix):
        raise StoreUnusableError("the prefix of a Redis store has up to 64 letters, digits or _.:-")
    return RedisUrl(
        hosts=hosts,
        cluster=kind == "cluster",
        tls=tls,
        service=service,
        username=_unquoted(parts["user"]),
        password=_unquoted(parts["password"]),
        prefix=prefix,
        replicas=_number(options, "replicas", 0, 0, 100),
        allow_memory=_flag(options, "allow_memory"),
        timeout_ms=_number(options, "timeout_ms", 2_000, 100, 600_000),
    )


def _unquoted(text: str | None) -> str | None:
    return unquote(text) if text else None


def _host(text: str, default_port: int) -> Address:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port or default_port
    except ValueError:
        host, port = None, 0
    if not host:
        # Not quoted: it may be the beginning of a password.
        raise StoreUnusableError(
            "what stands for a server in the store's URL is no host:port (in a password"
            " / ? # are written %2F %3F %23)"
        )
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
