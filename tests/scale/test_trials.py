"""The trials without a process: options, the course of events, tables and verdicts."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from tests.load.broker_process import BrokerError
from tests.load.plan import Plan
from tests.load.report import Report, measure
from tests.load.run import Outcome, Progress, Usage
from tests.proof.checker import Verdict
from tests.proof.history import gather
from tests.scale import fail, throughput
from tests.scale.__main__ import NAMES, main
from tests.scale.calls import Calls
from tests.scale.fail import FAULTS, Seen
from tests.scale.roll import Seen as Rolled
from tests.scale.site import Due, Setting, Site
from tests.scale.throughput import FACTOR_MAX, Phase


class FakeBroker:
    """Stands in for a process."""

    def __init__(self, name: str) -> None:
        self.doors = type("Doors", (), {"zmq": f"tcp://{name}"})
        self.alive = True

    def cpu_seconds(self) -> float:
        return 1.5

    def memory_mib(self) -> float:
        return 20.0

    def last_words(self) -> str:
        return "out of luck"


def site(count: int = 3, *, lists: bool = True) -> Site:
    brokers = [FakeBroker("abc"[number]) for number in range(count)]
    return Site(brokers, None, lists=lists)  # type: ignore[arg-type] # what is used of a broker


def sending(share: float = 0.5) -> Progress:
    return Progress("sending", 1, 1, share, 0)


class TestSite:
    def test_every_process_begins_with_another_broker(self) -> None:
        addresses = [site().address(process) for process in range(4)]
        assert addresses[0] == "tcp://a,tcp://b,tcp://c"
        assert addresses[1] == "tcp://b,tcp://c,tcp://a"
        assert addresses[3] == addresses[0]

    def test_one_address_each_where_that_is_asked_for(self) -> None:
        where = site(lists=False)
        assert [where.address(process) for process in range(3)] == [
            "tcp://a", "tcp://b", "tcp://c",
        ]  # fmt: skip

    def test_the_usage_is_that_of_all_brokers(self) -> None:
        assert site().usage() == Usage(4.5, 60.0)
        assert site().servers_cpu_seconds() == 0

    def test_what_is_due_happens_once_in_its_order_and_not_before_the_sending(self) -> None:
        where, done = site(), []
        where.course = [Due(0, lambda: done.append(1)), Due(0, lambda: done.append(2)),
                        Due(99, lambda: done.append(3))]  # fmt: skip
        where.look(Progress("logging in", 0, 0, 0, 0))
        assert done == []
        where.look(sending())
        where.look(sending())
        assert done == [1, 2]

    def test_a_broker_that_ends_unasked_ends_the_load(self) -> None:
        where = site()
        where.brokers[1].alive = False  # type: ignore[misc] # a fake
        with pytest.raises(BrokerError, match="out of luck"):
            where.look(sending())
        where.away.add(where.brokers[1])
        where.look(sending())


def result(**counts: int) -> Report:
    plan = Plan(senders=1, readers=1, mailboxes=1)
    outcome = Outcome(gather([]), [], Usage(1, 1), [])
    verdict = Verdict(sends=5, counts=Counter(counts))
    return Report(plan, measure(plan, outcome), verdict, faults=[], unreachable=False)


def shown(*parts: object) -> str:
    console = Console(file=StringIO(), width=120)
    for part in parts:
        console.print(part)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


class TestFail:
    def test_what_was_announced_is_no_failure(self) -> None:
        report = result()
        report.verdict.announced = 7
        seen = Seen("behind", report, 4.5, 5.0)
        assert seen.holds
        assert (seen.silent, seen.as_json()["lost"]) == (0, 7)
        assert "4.5 s" in shown(fail._table([seen]))
        assert "lost in silence" in shown(*fail._judgement([seen]))

    def test_silent_loss_is_one(self) -> None:
        seen = Seen("behind", result(L1=3), 4.5, 5.0)
        assert not seen.holds
        assert seen.silent == 3
        assert "broken: L1 3x" in shown(fail._table([seen]))
        assert "nobody was told" in shown(*fail._judgement([seen]))

    def test_so_is_somebody_who_is_never_served_again(self) -> None:
        seen = Seen("broker", result(), None, 5.0)
        assert not seen.holds
        assert "never" in shown(fail._table([seen]))

    def test_all_is_what_a_promise_is_made_for(self) -> None:
        assert fail._named("all") == ["broker", "primary", "standstill", "behind", "machine"]
        assert fail._named("machine") == ["machine"]

    def test_a_fault_strikes_in_its_time_and_the_doubt_lasts_until_it_is_mended(self) -> None:
        where, done = site(), []
        fault = fail.Fault(*(lambda word=word: done.append(word) for word in ("strike", "mend")))
        happening = fail._Happening(where, fault)
        for due in happening.course(6.0):
            due.act()
        assert done == ["strike", "mend"]
        (restart,) = where.restarts
        assert restart.killed_ns == happening.at_ns <= restart.ready_ns

    def test_every_fault_has_a_name_for_people(self) -> None:
        assert all(told for told, _ in FAULTS.values())


class TestRoll:
    QUIET = Calls(100, 1.0, 2.0, 3.0)

    def test_an_error_that_a_caller_saw_is_a_failure_though_every_law_holds(self) -> None:
        report = result()
        seen = Rolled(report, self.QUIET, self.QUIET, [1.0])
        assert seen.holds
        figures = replace(report.figures, errors={"unavailable": 1})
        assert not replace(seen, result=replace(report, figures=figures)).holds


class TestThroughput:
    def arrangements(self, *redis_us: float) -> list[throughput.Seen]:
        phase = Phase(10, 1.0, 1.0, 1.0, 5.0, 0.0, 1.0)
        return [
            throughput.Seen(max(brokers, 1), "Redis" if brokers else "SQLite",
                            phase._replace(redis_us=us), phase)
            for brokers, us in enumerate(redis_us)
        ]  # fmt: skip

    def test_the_ratio_is_of_all_brokers_to_one_on_redis(self) -> None:
        seen = self.arrangements(0, 10, 12, 15)
        assert throughput._factor(seen) == pytest.approx(25 / 20)
        assert "1.25 times" in shown(throughput._judgement(seen))
        assert "1 on SQLite" in shown(throughput._table(seen))

    def test_a_message_that_costs_much_more_with_more_brokers_is_said(self) -> None:
        seen = self.arrangements(0, 10, 50)
        assert throughput._factor(seen) > FACTOR_MAX
        assert "more than" in shown(throughput._judgement(seen))

    def test_a_result_is_json(self) -> None:
        json.dumps([each.as_json() for each in self.arrangements(0, 10)])


class TestCommandLine:
    def test_without_a_name_all_are_listed(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([]) == 0
        listed = capsys.readouterr().out
        assert all(name in listed for name in NAMES)

    def test_an_unknown_name_is_answered_with_those_there_are(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["lode"]) == 2
        assert "throughput" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "words",
        [["load", "--brokers", "0"], ["fail", "--seconds", "5"], ["fail", "--fault", "flood"],
         ["push", "--brokers", "1"], ["roll", "--pause", "x"]],
    )  # fmt: skip
    def test_a_wrong_option_is_exit_code_2(self, words: list[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2

    def test_a_machine_without_redis_is_exit_code_2_and_says_what_to_install(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert main(["load"]) == 2
        assert "apt install redis-server" in capsys.readouterr().err

    def test_a_site_is_described_in_words(self) -> None:
        assert str(Setting(brokers=1, cluster=False)).startswith("1 broker on one Redis")
        assert "3 brokers on a Redis Cluster of 3 primaries and 3 replicas" in str(Setting())
        assert "replicas=1" in Setting(replicas=1).options()
