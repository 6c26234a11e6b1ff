"""kill -9 in the middle of a load: what was answered OK survives, once and in order."""

from __future__ import annotations

from pathlib import Path

from tests.load.broker_process import BrokerProcess
from tests.load.plan import Plan
from tests.load.report import report
from tests.load.run import Progress, run


def test_a_broker_killed_under_load_keeps_every_promise_and_every_token() -> None:
    """Given two senders with hundreds of messages under way, and two readers that acknowledge,

    if the broker is killed three times and restarted on its data,
    I expect a clean verdict, each message once, and tokens that are still valid.
    """
    plan = Plan(senders=2, readers=2, mailboxes=10, messages=12_000, window=300, kills=3)
    result = report(plan, run(plan, lambda _: None))
    assert result.clean, f"{result.verdict}\n{result.complaints}"
    assert result.figures.kills == 3
    assert result.figures.sends_ok == 24_000
    assert result.figures.read >= 24_000  # what was read and not yet acknowledged is read again
    assert result.figures.tokens_valid == result.figures.tokens == 12


def test_a_broker_that_forgets_when_killed_is_not_called_clean() -> None:
    """The counter-check: the same load on a memory store must fail, or the verdict says nothing."""
    plan = Plan(
        senders=1, readers=1, mailboxes=2, messages=6_000, window=100, kills=1, store="memory:"
    )
    result = report(plan, run(plan, lambda _: None))
    assert result.exit_code != 0
    assert result.figures.tokens_valid < result.figures.tokens


def test_each_life_of_the_broker_sees_some_load() -> None:
    """Kills are spread over the sending: none falls before its first or after its last message.

    The window is small, so that the sending lasts far longer than the look at its progress.
    """
    plan = Plan(senders=1, readers=1, mailboxes=2, messages=20_000, window=10, kills=2)
    seen: list[Progress] = []
    run(plan, seen.append)
    sent_at_kill = {p.kills: p.sent for p in reversed(seen) if p.phase == "sending"}
    assert 0 < sent_at_kill[1] < sent_at_kill[2] < 20_000


def test_a_restarted_broker_listens_where_its_clients_expect_it(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path / "data") as broker:
        doors = broker.doors
        broker.kill()
        assert not broker.alive
        broker.start()
        assert broker.alive
        assert broker.doors == doors
