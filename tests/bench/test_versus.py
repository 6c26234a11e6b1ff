"""Two brokers in turns, with a stand-in for the driver that measures them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench import contest as contest_module
from tests.bench import ratios_page, versus
from tests.bench.contest import Comparison, Contender, Contest, VersusError, Where, compare
from tests.bench.rivals import RIVALS

#: Writes down who came; ours does 200 sends a second, theirs 100; FOREIGN is a list of what it
#: finds the machine busy with, run by run.
DRIVER = """
import json, sys
from pathlib import Path
words = sys.argv[1:]
value = lambda name: int(words[words.index(name) + 1])
folder = Path(__file__).parent
with (folder / "runs").open("a") as runs:
    runs.write(f"{words[0]} {value('--messages')}\\n")
count = len((folder / "runs").read_text().splitlines())
if (folder / "broken").exists():
    print("no such library", file=sys.stderr), sys.exit(1)
foreign = json.loads((folder / "foreign").read_text())
if words[1] == "beanstalkd":
    print(json.dumps(dict(error="no such program"))), sys.exit(1)
rate = 200 if words[0] == "--ours" else 100
print("noise of a library")
print(json.dumps(dict(sent_per_s=rate, send_s=value("--messages") / rate, p50_us=1e6 / rate,
                      lost=int((folder / "lossy").exists()), version="1.2",
                      other_cores=foreign[min(count, len(foreign)) - 1])))
"""
OURS, THEIRS = Contender("ours", ("--ours",)), Contender("theirs", ("--theirs",))


@pytest.fixture
def contest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Contest:
    monkeypatch.setattr(contest_module, "wait_until_quiet", lambda _: None)
    (tmp_path / "peers.py").write_text(DRIVER)
    (tmp_path / "foreign").write_text("[0]")
    return Contest(
        driver=tmp_path / "peers.py", alternations=2, seconds=5.0, drain_max=10,
        foreign_max=0.2, say=lambda _: None,
    )  # fmt: skip


def runs(contest: Contest) -> list[str]:
    return (contest.driver.parent / "runs").read_text().splitlines()


def test_both_run_in_turns_for_about_the_wanted_time(contest: Contest) -> None:
    pairs = list(contest.run(Where(1, 1), OURS, THEIRS))
    assert runs(contest) == ["--ours 500", "--theirs 500"] + ["--ours 1000", "--theirs 500"] * 2
    assert [ours["send_s"] for ours, _ in pairs] == [5.0, 5.0]


def test_a_disturbed_pair_is_taken_again(contest: Contest) -> None:
    (contest.driver.parent / "foreign").write_text("[0, 0, 0, 0.9, 0]")
    assert len(list(contest.run(Where(1, 1), OURS, THEIRS))) == 2
    assert len(runs(contest)) == 2 + 3 * 2


def test_a_machine_that_is_never_quiet_does_not_keep_it_for_ever(contest: Contest) -> None:
    (contest.driver.parent / "foreign").write_text("[0.9]")
    assert len(list(contest.run(Where(1, 1), OURS, THEIRS))) == 2
    assert len(runs(contest)) == 2 + 2 * (2 + 2 * 2)


def test_a_peer_that_fails_is_named_with_its_own_words(contest: Contest) -> None:
    (contest.driver.parent / "broken").touch()
    with pytest.raises(VersusError, match="ours: no such library"):
        list(contest.run(Where(1, 1), OURS, THEIRS))


def test_a_broker_of_ours_that_lost_messages_has_no_figures(contest: Contest) -> None:
    (contest.driver.parent / "lossy").touch()
    with pytest.raises(VersusError, match="ours lost 1 messages"):
        list(contest.run(Where(1, 1), OURS, THEIRS))


def test_how_fast_somebody_is_gets_asked_once(contest: Contest) -> None:
    for _ in range(2):
        list(contest.run(Where(1, 1), OURS, THEIRS))
    assert len(runs(contest)) == 2 + 2 * 2 * 2


def test_a_ratio_is_the_median_of_the_pairs_since_the_machine_drifts() -> None:
    pairs = [({"sent_per_s": o}, {"sent_per_s": t}) for o, t in [(20, 10), (3, 1), (100, 100)]]
    assert compare(pairs) == {"sent_per_s": Comparison(20, 10, 2.0, 1.0, 3.0)}


def test_a_figure_that_a_peer_has_not_or_has_as_zero_is_not_divided() -> None:
    pairs = [({"p50_us": 1, "flushes_per_k": 5}, {"flushes_per_k": 0})]
    assert compare(pairs) == {"flushes_per_k": Comparison(5, 0, None, None, None)}


def test_every_result_is_a_line_and_the_last_one_judges(
    contest: Contest, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versus, "OURS", "ours.py")
    words = ["--peers", str(contest.driver.parent), "--point", "2,100", "--alternations", "1"]
    assert versus.main(words) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 3
    assert lines[-1]["point"] == "2x100"
    assert lines[-1]["sent_per_s"]["ratio"] == 1.0


@pytest.mark.parametrize("word", ["2", "2,", "0,1", "a,b"])
def test_a_point_that_is_none_is_refused(word: str, tmp_path: Path) -> None:
    (tmp_path / "peers.py").touch()
    with pytest.raises(SystemExit):
        versus.main(["--peers", str(tmp_path), "--point", word])


class TestAll:
    @pytest.fixture
    def files(self, tmp_path: Path) -> tuple[Path, Path]:
        page = tmp_path / "page.md"
        page.write_text(f"above\n{ratios_page.BEGIN}\nold\n{ratios_page.END}\nbelow\n")
        return tmp_path / "results", page

    def run(self, contest: Contest, files: tuple[Path, Path], *words: str) -> int:
        results, page = files
        where = ["--results", str(results), "--page", str(page)]
        brief = ["--alternations", "1", "--seconds", "1"]
        return versus.main(["--peers", str(contest.driver.parent), "--all", *where, *brief, *words])

    def test_every_rival_is_in_the_file_and_on_the_page_or_told_why_not(
        self, contest: Contest, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run(contest, files) == 1
        found = ratios_page.load(files[0])
        assert len(found.contested) == sum(len(rival.points) for rival in RIVALS)
        failed = {each.rival for each in found.contested if each.failed}
        assert failed == {"beanstalkd-f0-lib", "beanstalkd-f0-raw"}
        page = files[1].read_text()
        assert page.startswith("above\n")
        assert page.endswith("\nbelow\n")
        assert "old" not in page
        assert "beanstalkd-f0-raw at 2x100 could not be measured: beanstalkd: no such" in page

    def test_one_rival_again_leaves_the_others_as_they_were(
        self, contest: Contest, files: tuple[Path, Path]
    ) -> None:
        assert self.run(contest, files, "--only", "redis-*") == 1  # no results to add to
        ratios_page.save(ratios_page.NONE, files[0])
        assert self.run(contest, files, "--only", "redis-always-raw") == 0
        assert self.run(contest, files, "--only", "postgres-*") == 0
        rivals = [each.rival for each in ratios_page.load(files[0]).contested]
        assert rivals == ["redis-always-raw", *["postgres-each-lib"] * 3, "postgres-txn-lib"]

    def test_a_page_without_marks_is_told_before_anything_is_measured(
        self, contest: Contest, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        files[1].write_text("no marks\n")
        assert self.run(contest, files) == 1
        assert "needs a line" in capsys.readouterr().err
        assert not (contest.driver.parent / "runs").exists()

    def test_a_rival_that_nobody_knows_is_refused(
        self, contest: Contest, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        ratios_page.save(ratios_page.NONE, files[0])
        assert self.run(contest, files, "--only", "reids-*") == 1
        assert "no rival fits 'reids-*'" in capsys.readouterr().err

    def test_the_tables_are_written_again_without_measuring(
        self, contest: Contest, files: tuple[Path, Path]
    ) -> None:
        ratios_page.save(ratios_page.NONE, files[0])
        self.run(contest, files, "--only", "redis-*")
        results, page = files
        before = page.read_text()
        page.write_text(f"{ratios_page.BEGIN}\n{ratios_page.END}")
        assert versus.main(["--tables", "--results", str(results), "--page", str(page)]) == 0
        assert page.read_text() in before

    def test_the_project_has_results_and_a_page_to_write_them_into(self, tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        page.write_text(versus.PAGE.read_text())
        assert versus.main(["--tables", "--page", str(page)]) == 0

    def test_without_a_driver_there_is_nothing_to_measure(self) -> None:
        with pytest.raises(SystemExit):
            versus.main(["--all"])

    def test_list_names_every_rival(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert versus.main(["--list"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == [rival.key for rival in RIVALS]
