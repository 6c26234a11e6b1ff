"""The URL of a Redis store."""

from __future__ import annotations

import pytest

from broker.core.ports import StoreUnusableError
from broker.stores.redis.url import parse_url


def test_a_plain_url_has_the_usual_port_and_prefix() -> None:
    url = parse_url("redis://db")
    assert (url.hosts, url.cluster, url.tls, url.prefix) == ((("db", 6379),), False, False, "kotak")
    assert (url.username, url.password, url.replicas, url.allow_memory) == (None, None, 0, False)


def test_everything_that_a_url_can_say() -> None:
    url = parse_url(
        "rediss+cluster://bob:p%40ss@a:1,[::1]:2,c?prefix=x.y&replicas=2&allow_memory=yes"
        "&timeout_ms=250"
    )
    assert url.hosts == (("a", 1), ("::1", 2), ("c", 6379))
    assert (url.cluster, url.tls, url.username, url.password) == (True, True, "bob", "p@ss")
    assert (url.prefix, url.replicas, url.allow_memory, url.timeout_ms) == ("x.y", 2, True, 250)
    assert "p@ss" not in repr(url)


def test_sentinels_have_another_port_and_name_the_primary() -> None:
    url = parse_url("redis+sentinel://:geheim@a,b:1/post?replicas=1")
    assert (url.hosts, url.service, url.cluster) == ((("a", 26379), ("b", 1)), "post", False)
    assert url.where == "post of the sentinels a:26379,b:1"
    assert parse_url("rediss+sentinel://a/post").tls


def test_people_are_told_where_without_who() -> None:
    assert parse_url("redis://bob:geheim@db").where == "db:6379"
    assert parse_url("redis+cluster://:geheim@a:1,b:2").where == "the cluster a:1,b:2"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://db", "begins with"),
        ("redis://", "no host:port"),
        ("redis://db:port", "no host:port"),
        ("redis://a,b", "redis\\+cluster"),
        ("redis://db/1", "no path"),
        ("redis+cluster://db/1", "no path"),
        ("redis+sentinel://db", "end with /NAME"),
        ("redis://[::1", "no host:port"),
        ("redis+cluster://:gehe?im@db", "no host:port"),
        ("redis+sentinel://:gehe/im@db", "no host:port"),
        ("redis://db?prefix=a{b}", "prefix"),
        ("redis://db?replicas=-1", "replicas"),
        ("redis://db?timeout_ms=1", "timeout_ms"),
        ("redis://db?allow_memory=perhaps", "yes or no"),
        ("redis://db?colour=red", "no option 'colour'"),
    ],
)
def test_a_bad_url_is_refused_with_what_to_do(url: str, says: str) -> None:
    with pytest.raises(StoreUnusableError, match=says) as caught:
        parse_url(url)
    assert "gehe" not in str(caught.value)
