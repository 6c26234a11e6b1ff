"""Looks for secrets in what the ordinary tests' own brokers and commands write, while they run.

A pytest plugin. Tokens are known by their form; passwords and texts are learned as the test's own
clients send them. A test fails where one of them stands in a log record or in the standard error,
or log file, of a program that it started.
"""

from __future__ import annotations

import functools
import logging
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

import pytest

from broker.logs import TextFormatter

_TOKEN: Final = re.compile(r"kt_[A-Za-z0-9_-]{43}")
#: A shorter one stands in other words by chance.
_PASSWORD_CHARS_MIN: Final = 8
_TEXT_CHARS_MIN: Final = 16
#: Secrets kept of one test: a load has more, and they are alike.
_KEPT_MAX: Final = 200
_FIELDS: Final = {
    "password": _PASSWORD_CHARS_MIN,
    "new_password": _PASSWORD_CHARS_MIN,
    "text": _TEXT_CHARS_MIN,
}


class CanaryWatch(logging.Handler):
    """What one test's secrets are, and where one of them was seen. `install` it once."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(TextFormatter())
        self._secrets: dict[str, str] = {}
        self._seen: list[str] = []

    def install(self) -> None:
        """Listen to logs, to what is sent, and to what programs said."""
        from clients import outbox
        from tests.e2e import program, raw_peer
        from tests.load.broker_process import BrokerProcess

        logging.getLogger().addHandler(self)
        for module in (outbox, raw_peer):
            self.install_at(module)
        _wrap(program.Program, "end", after=lambda ended, *_: self.look(ended.err, "stderr"))
        _wrap(BrokerProcess, "stop", after=lambda _, broker: self.look(broker.last_words(), "log"))
        _wrap(subprocess, "run", after=self.ran)

    def install_at(self, module: Any) -> None:
        """Learn what ``module`` sends."""
        _wrap(module, "encode_request", before=self._sent)

    # --- Learning ----------------------------------------------------------------------------

    def _sent(self, _: object, __: object, ___: object, ____: object, args: Any) -> None:
        if len(self._secrets) < _KEPT_MAX and isinstance(args, Mapping):
            for name, chars_min in _FIELDS.items():
                value = args.get(name)
                if isinstance(value, str) and len(value) >= chars_min:
                    self.learn(value, name)

    def learn(self, secret: str, what: str) -> None:
        """Look for this one until the test ends."""
        if len(self._secrets) < _KEPT_MAX:
            self._secrets[secret] = what

    # --- Looking -----------------------------------------------------------------------------

    def emit(self, record: logging.LogRecord) -> None:
        # As it is written: of fields that are not listed, and of exceptions, no text is.
        with suppress(TypeError, ValueError):  # a bad log call is the broker's own handler's
            self.look(self.format(record), f"the log of {record.name}")

    def ran(self, done: subprocess.CompletedProcess[Any], *_: object) -> None:
        """Look at what a program said that has ended."""
        said = (
            done.stderr.decode(errors="replace") if isinstance(done.stderr, bytes) else done.stderr
        )
        self.look(said or "", "stderr")

    def look(self, text: str, where: str) -> None:
        """Note each secret that stands in ``text``."""
        if _TOKEN.search(text):
            self._seen.append(f"a token in {where}")
        for secret, what in list(self._secrets.items()):
            if secret in text:
                self._seen.append(f"a {what} in {where}")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._secrets.clear()
        self._seen.clear()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Iterator[None]:
        outcome = yield
        if self._seen:
            pytest.fail(f"secrets leaked: {', '.join(sorted(set(self._seen)))}", pytrace=False)
        return outcome


def _wrap(
    owner: Any,
    name: str,
    *,
    before: Callable[..., object] | None = None,
    after: Callable[..., object] | None = None,
) -> None:
    """Have ``before`` called with the arguments, or ``after`` with the result and the arguments."""
    wrapped = getattr(owner, name)

    @functools.wraps(wrapped)
    def listened_to(*given: Any, **named: Any) -> Any:
        if before is not None:
            before(*given)
        result = wrapped(*given, **named)
        if after is not None:
            after(result, *given)
        return result

    setattr(owner, name, listened_to)
