"""The watch over every test: what it learns, where it looks, and that it fails the test."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Generator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from broker.wire.envelope import encode_request, encoder
from tests.canary_watch import CanaryWatch

TOKEN = "kt_" + 43 * "a"


@pytest.fixture
def watch() -> CanaryWatch:
    """One that listens to nothing by itself."""
    return CanaryWatch()


def verdict(watch: CanaryWatch) -> str:
    """Return what a test that ended now would fail with; empty where it would not."""
    ending = cast("Generator[None, Any, None]", watch.pytest_runtest_teardown(cast("Any", None)))
    next(ending)
    try:
        ending.send(None)
    except StopIteration:
        return ""
    except pytest.fail.Exception as error:
        return str(error)
    raise AssertionError("it asked for more")


def log(watch: CanaryWatch, message: str, *words: object, **extra: object) -> None:
    made = logging.getLogger("x").makeRecord(
        "kotak.x", logging.INFO, "x.py", 1, message, words, None, extra={"fields": extra}
    )
    watch.handle(made)


def test_a_token_in_a_log_record_fails_the_test(watch: CanaryWatch) -> None:
    log(watch, "logged in %s", "siti")
    assert verdict(watch) == ""
    log(watch, "logged in with %s", TOKEN)
    assert verdict(watch) == "secrets leaked: a token in the log of kotak.x"


def test_a_listed_field_is_looked_at_and_one_that_is_not_written_is_not(watch: CanaryWatch) -> None:
    log(watch, "logged in", token=TOKEN)
    assert verdict(watch) == ""
    log(watch, "logged in", reason=TOKEN)
    assert verdict(watch)


@pytest.mark.parametrize(
    ("name", "secret"),
    [("password", "correct horse"), ("new_password", "battery staple"), ("text", 16 * "x")],
)
def test_what_the_test_sends_as_a_secret_is_looked_for(
    watch: CanaryWatch, name: str, secret: str
) -> None:
    client = SimpleNamespace(encode_request=encode_request)
    watch.install_at(client)
    client.encode_request(encoder(), 1, "login", None, {"user": "a long user name", name: secret})
    watch.look(f"bad request: {secret}", "stderr")
    watch.look("a long user name", "stderr")
    assert verdict(watch) == f"secrets leaked: a {name} in stderr"


def test_a_short_word_is_not_looked_for(
    watch: CanaryWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = SimpleNamespace(encode_request=encode_request)
    watch.install_at(client)
    client.encode_request(encoder(), 1, "login", None, {"password": "mks", "text": "hai"})
    watch.look("mks says hai", "stderr")
    assert verdict(watch) == ""


@pytest.mark.parametrize("said", [TOKEN, TOKEN.encode(), None])
def test_the_errors_of_a_program_are_looked_at(
    watch: CanaryWatch, said: str | bytes | None
) -> None:
    watch.ran(subprocess.CompletedProcess([], 0, stdout=TOKEN, stderr=said))
    assert bool(verdict(watch)) == (said is not None)


def test_the_next_test_begins_without_the_former_ones_secrets(watch: CanaryWatch) -> None:
    watch.learn("correct horse", "password")
    watch.look("correct horse", "stderr")
    next(watch.pytest_runtest_protocol(cast("Any", None)))
    watch.look("correct horse", "stderr")
    assert verdict(watch) == ""


def test_this_run_is_watched(request: pytest.FixtureRequest) -> None:
    plugins = request.config.pluginmanager.get_plugins()
    (installed,) = [plugin for plugin in plugins if isinstance(plugin, CanaryWatch)]
    assert installed in logging.getLogger().handlers
