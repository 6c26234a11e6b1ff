"""The check of the broker's cost against an echo: how it judges, what it measures, what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.bench import check as check_module
from tests.bench.check import check, made_of, measure
from tests.bench.echo import turn
from tests.bench.figures import Figures
from tests.bench.judgement import (
    BASELINE,
    GROWTH_MAX,
    Baseline,
    BaselineError,
    Ratio,
    finding,
    judge,
    load_baseline,
)
from tests.bench.options import parse
from tests.bench.scenarios import Bench

THEN = Baseline(cpu=4.0, rate=0.25, made="2026-01-02", how="by hand")


def of(us: float, per_s: float, foreign: float = 0.0) -> Figures:
    return {"broker_us": us, "sends_per_s": per_s, "foreign_cores": foreign}


class TestJudging:
    @given(st.floats(0.1, 100), st.floats(0.1, 100))
    def test_only_a_growth_of_more_than_a_third_is_a_loss(self, then: float, now: float) -> None:
        before = Baseline(cpu=then, rate=1, made="2026-01-02", how="")
        assert judge(Ratio(now, 1), before).slower == (now / then > GROWTH_MAX)

    @pytest.mark.parametrize(("now", "slower"), [(1.0, False), (5.3, False), (5.4, True)])
    def test_a_third_more_than_four_is_five_and_a_third(self, now: float, *, slower: bool) -> None:
        assert judge(Ratio(now, 0.25), THEN).slower is slower

    def test_a_lower_rate_alone_is_no_loss(self) -> None:
        assert not judge(Ratio(4.0, 0.001), THEN).slower

    def test_a_loss_is_told_with_what_to_do(self) -> None:
        sentence = judge(Ratio(8.0, 0.25), THEN).sentence
        assert "2.00 times what it was on 2026-01-02" in sentence
        assert "--profile" in sentence
        assert "--check --write" in sentence

    def test_without_a_baseline_nothing_is_judged(self) -> None:
        found = judge(Ratio(100.0, 0.1), None)
        assert (found.growth, found.slower) == (None, False)
        assert "--check --write" in found.sentence

    def test_a_system_that_does_not_tell_processor_time_is_not_judged(self) -> None:
        middle = finding([(of(0, 10), of(0, 100))]).middle
        assert middle == Ratio(0.0, 0.1)
        assert not judge(middle, THEN).slower

    def test_one_disturbed_round_of_three_does_not_count(self) -> None:
        calm, disturbed = (of(8, 50), of(2, 200)), (of(80, 5, foreign=0.9), of(2, 200))
        found = finding([calm, disturbed, calm])
        assert found.middle == Ratio(4.0, 0.25)
        assert found.foreign_cores == 0.9

    def test_a_machine_twice_as_slow_has_the_same_ratios(self) -> None:
        assert (
            finding([(of(8, 50), of(2, 200))]).middle == finding([(of(16, 25), of(4, 100))]).middle
        )


class TestBaseline:
    def test_the_one_of_the_project_can_be_read_and_says_how_it_was_made(self) -> None:
        baseline = load_baseline(BASELINE)
        assert baseline is not None
        assert baseline.cpu > 1
        assert "scripts/bench --check --write" in baseline.how

    def test_none_is_none(self, tmp_path: Path) -> None:
        assert load_baseline(tmp_path / "none") is None

    @pytest.mark.parametrize("text", ["", "{}", "[]", "7", '{"cpu": 1}'])
    def test_a_spoilt_one_is_refused_with_what_to_do(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "file").write_text(text)
        with pytest.raises(BaselineError, match="--check --write makes one"):
            load_baseline(tmp_path / "file")

    def test_a_new_one_says_how_many_rounds_and_who_disturbed_them(self) -> None:
        found = finding([(of(8, 50, foreign=0.5), of(2, 200))] * 3)
        made = made_of(found, Bench(seconds=2.0))
        assert (made.cpu, made.rate) == (4.0, 0.25)
        assert "3 rounds of 2 s" in made.how
        assert "0.50 cores" in made.how


class TestMeasuring:
    def test_the_echo_sends_back_what_each_client_sent(self) -> None:
        with (
            zmq.Context() as context,
            context.socket(zmq.ROUTER) as router,
            context.socket(zmq.DEALER) as one,
            context.socket(zmq.DEALER) as other,
        ):
            port = router.bind_to_random_port("tcp://127.0.0.1")
            for socket in (one, other):
                socket.setsockopt(zmq.RCVTIMEO, 10_000)
                socket.connect(f"tcp://127.0.0.1:{port}")
            said = {one: [b"a", b"", b"b" * 100], other: [b"c"]}
            for socket, bodies in said.items():
                for body in bodies:
                    socket.send(body)
            returned = 0
            while returned < 4 and router.poll(10_000):
                returned += turn(router)
            heard = {socket: [socket.recv() for _ in bodies] for socket, bodies in said.items()}
            assert heard == said

    def test_a_round_costs_the_broker_more_than_the_echo(self) -> None:
        ((broker, echo),) = measure(Bench(seconds=0.5, store="memory:"), rounds=1)
        assert broker["messages"] > 0
        assert echo["messages"] > 0
        assert broker["broker_us"] > echo["broker_us"] > 0


class TestReporting:
    @pytest.fixture(autouse=True)
    def measured(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rounds = [(of(8, 50, foreign=0.5), of(2, 200))] * 3
        monkeypatch.setattr(check_module, "measure", lambda _bench, _rounds: iter(rounds))

    def run(self, file: Path, **options: Any) -> tuple[int, str]:
        console = Console(width=100)
        with console.capture() as capture:
            code = check(Bench(), console, file=file, **options)
        return code, capture.get()

    def file(self, folder: Path, cpu: float) -> Path:
        path = folder / "baseline"
        path.write_text(json.dumps({"cpu": cpu, "rate": 1, "made": "2026-01-02", "how": "by hand"}))
        return path

    def test_what_holds_has_code_0_and_what_is_lost_code_1(self, tmp_path: Path) -> None:
        assert self.run(self.file(tmp_path, 4.0))[0] == 0
        assert self.run(self.file(tmp_path, 2.9))[0] == 1

    def test_the_report_has_ratios_and_who_disturbed_them(self, tmp_path: Path) -> None:
        text = self.run(self.file(tmp_path, 4.0))[1]
        assert "4.00" in text
        assert "0.25" in text
        assert "baseline, 2026-01-02" in text
        assert "0.5 cores were busy with something else" in text

    def test_nothing_in_the_report_is_a_time(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        text = self.run(self.file(tmp_path, 4.0))[1]
        assert "µs" not in text
        line = json.loads(capsys.readouterr().out)
        assert (line["cpu_ratio"], line["growth"], line["slower"]) == (4.0, 1.0, False)
        assert not [name for name in line if name.endswith(("_us", "_s", "_per_s"))]

    def test_a_written_baseline_is_what_the_next_run_is_compared_with(self, tmp_path: Path) -> None:
        file = tmp_path / "baseline"
        assert self.run(file, write=True)[0] == 0
        written = load_baseline(file)
        assert written is not None
        assert written.cpu == 4.0
        assert "1.00 times" in self.run(file)[1]


class TestCommand:
    def test_a_check_has_a_time_and_rounds_of_its_own(self) -> None:
        options = parse(["--check"])
        assert options is not None
        assert (options.check, options.write) == (True, False)
        assert (options.seconds, options.repeat) == (2.0, 3)

    @pytest.mark.parametrize(
        "words",
        [
            ["--write"],
            ["--check", "--points", "send"],
            ["--check", "--draw", "."],
            ["--check", "--store", "memory:"],
        ],
    )
    def test_what_does_not_go_together_is_refused(self, words: list[str]) -> None:
        with pytest.raises(SystemExit):
            parse(words)

    def test_a_check_that_cannot_measure_is_told_from_a_loss(self, tmp_path: Path) -> None:
        program = (
            "import sys, tests.bench.__main__ as bench; from tests.bench.crew import CrewError\n"
            "def fail(*_, **__): raise CrewError('no such door')\n"
            "bench.check = fail; sys.exit(bench.main())"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, "--check"],
            cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 3
        assert "no such door" in done.stderr
