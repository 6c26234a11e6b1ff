"""A little of each kind of hostile input with every test run, all that was ever found, and proof
that the fuzzer finds what is planted for it."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from broker.core.handlers import COMMANDS as TABLE
from broker.core.handlers import CommandSpec
from broker.core.service import Service
from broker.transports.text_commands import Commands
from broker.wire import text
from broker.wire.codec import unpack_reply
from broker.wire.commands import PARSERS
from broker.wire.envelope import check_request, decode_requests, encode_request, encoder
from broker.wire.errors import WireError
from broker.wire.limits import LINE_BYTES_MAX
from tests.hostile.fuzz import cases, dispatching, door, main, parsers, parsing, sockets
from tests.hostile.fuzz.arcs import Arcs
from tests.hostile.fuzz.breach import Breach
from tests.hostile.fuzz.crew import REPLAYS, Order, run_all
from tests.hostile.fuzz.desk import USERS, Desk
from tests.hostile.fuzz.grammar import COMMANDS, Grammar, fields_of
from tests.hostile.fuzz.mutate import BYTES_MAX, mutate
from tests.hostile.fuzz.tally import Failure, Tally

LONG_S = 60.0


def _silent(_: int) -> None:
    pass


def _kept(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.glob("*/*"))


@contextmanager
def _garbage() -> Iterator[list[int]]:
    """Count the objects that only a search for cycles finds after what is done inside."""
    counted: list[int] = []
    gc.collect()
    gc.disable()
    try:
        yield counted
        counted.append(gc.collect())
    finally:
        gc.enable()


@pytest.fixture
def nothing_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a test makes fail on purpose is no case for ever."""
    monkeypatch.setattr(cases, "FOUND", tmp_path / "found")
    return tmp_path / "found"


# --- what is kept ----------------------------------------------------------------------------


@pytest.mark.parametrize("case", _kept(cases.FOUND))
def test_what_was_found_once_holds(case: str) -> None:
    target, _, name = case.partition("/")
    content = (cases.FOUND / case).read_bytes()
    assert cases.name_of(content) == name, "a case is never changed: add another"
    known = [signature for signature, where in cases.OPEN.items() if where == case]
    if not known:
        REPLAYS[target](content)
        return
    with pytest.raises(Exception, match=r".") as caught:  # none: it is mended, and its line goes
        REPLAYS[target](content)
    assert known == [cases.signature(target, caught.value)]
    pytest.xfail("known, and not mended yet")


def test_every_open_fault_has_its_case() -> None:
    assert set(cases.OPEN.values()) <= set(_kept(cases.FOUND))


@pytest.mark.parametrize("target", parsers.TARGETS, ids=lambda target: target.name)
def test_the_corpus_holds_and_is_small(target: parsers.Target) -> None:
    for content in cases.read_all(cases.CORPUS, target.name):
        assert len(content) <= cases.KEPT_BYTES_MAX
        target.check(content)


# --- a little of each ------------------------------------------------------------------------


def test_thousands_of_inputs_end_in_a_value_or_a_refusal(nothing_kept: Path) -> None:
    tally = parsing.Parsing("test").run(8_000, seconds_max=LONG_S, told=_silent)
    assert tally.inputs == 8_000
    assert tally.holds, tally.failures
    assert tally.arcs > 200


def test_the_service_answers_everything_once_and_stays_consistent(nothing_kept: Path) -> None:
    tally = dispatching.Dispatching("test").run(4_000, seconds_max=LONG_S, told=_silent)
    assert tally.inputs >= 4_000
    assert tally.holds, tally.failures
    assert tally.arcs > 1_000


def test_each_line_of_the_text_door_has_one_reply(nothing_kept: Path) -> None:
    tally = door.Knocking("test").run(800, seconds_max=LONG_S, told=_silent)
    assert tally.inputs >= 800
    assert tally.holds, tally.failures


def test_a_blank_line_is_owed_nothing_unless_it_is_too_long_with_its_return() -> None:
    assert door.owed(b" " * (LINE_BYTES_MAX - 1) + b"\r\n", ends=False) == 0
    assert door.owed(b" " * LINE_BYTES_MAX + b"\r\n", ends=False) == 1


def test_a_broker_under_fire_serves_the_honest_and_ends_well() -> None:
    tally = sockets.besiege("test", 500, seconds_max=LONG_S, told=_silent)
    assert tally.inputs >= 500
    assert not tally.failures
    assert not tally.dead


@pytest.mark.parametrize(
    "frame", [b"\xc1", b"\x90", b"\x94\x01\xa4chat\xc0\x80", b"\x94\x01\xa1x\xc0\x80"]
)
def test_what_is_refused_is_let_go_of_at_once(frame: bytes) -> None:
    """An error that holds the steps it came through holds the whole message with it."""
    desk = Desk(0)
    with _garbage() as garbage:
        desk.turn(1, [(b"r1", [frame] * 100)], work=False)
    assert garbage[0] < 100


def test_a_line_that_is_refused_is_let_go_of_at_once() -> None:
    with door.Door() as opened:
        opened.talk([b"x"], ends=True)
        with _garbage() as garbage:
            opened.talk([b"x\r\n" * 100 + b"chat \xff \r\n" * 100], ends=True)
    assert garbage[0] < 100


# --- it finds what is there ------------------------------------------------------------------


def test_a_parser_that_raises_something_else_is_found_and_its_input_shortened(
    nothing_kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(fields: dict[str, Any]) -> Any:
        return ()[fields["seq"]]  # a KeyError, a TypeError, an IndexError

    monkeypatch.setitem(PARSERS, "ack", broken)
    target = parsers.TARGETS[0]
    run = parsing.Parsing("test", targets=(target,))
    tally = run.run(5_000, seconds_max=LONG_S, told=_silent)
    assert not tally.holds
    assert any("KeyError" in failure.signature for failure in tally.failures)
    (shortest, *_) = sorted(
        (nothing_kept / "request").iterdir(), key=lambda path: path.stat().st_size
    )
    assert shortest.stat().st_size < 100, "what does not matter is gone"
    with pytest.raises((LookupError, TypeError)):
        target.check(shortest.read_bytes())


def test_a_parser_that_forgets_a_limit_is_found(
    nothing_kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.wire.commands.mail.MESSAGE_ID_CHARS_MAX", 2**20)
    tally = parsing.Parsing("test", targets=parsers.TARGETS[:1]).run(
        8_000, seconds_max=LONG_S, told=_silent
    )
    assert any("'id' has too many characters" in each.signature for each in tally.failures)


def test_a_splitter_that_loses_what_a_segment_ends_with_is_found(
    nothing_kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = text.LineSplitter.feed

    def lossy(self: text.LineSplitter, received: bytes | memoryview) -> None:
        feed(self, bytes(received).removesuffix(b"\r"))

    monkeypatch.setattr(text.LineSplitter, "feed", lossy)
    lines = tuple(each for each in parsers.TARGETS if each.name == "line")
    tally = parsing.Parsing("test", targets=lines).run(5_000, seconds_max=LONG_S, told=_silent)
    assert any("segments do not show" in each.signature for each in tally.failures)


def _with_handler(command: str, handle: Callable[..., Any]) -> CommandSpec:
    spec = TABLE[command]
    fields = {name: getattr(spec, name) for name in CommandSpec.__slots__}
    return CommandSpec(**{**fields, "handle": handle})


def test_a_handler_with_a_fault_is_found_and_its_steps_can_be_fed_again(
    nothing_kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object, args: Any) -> Any:
        return {}[args.seq]

    monkeypatch.setitem(TABLE, "ack", _with_handler("ack", broken))
    tally = dispatching.Dispatching("test").run(2_000, seconds_max=LONG_S, told=_silent)
    assert any("a fault of the broker" in each.signature for each in tally.failures)
    (case,) = (nothing_kept / "service").iterdir()
    _, steps = unpack_reply(case.read_bytes())
    assert len(steps) == 1, "the steps before it do not matter"
    with pytest.raises(Breach):
        dispatching.replay(case.read_bytes())
    monkeypatch.undo()
    dispatching.replay(case.read_bytes())


def test_an_answer_that_is_lost_is_found(
    nothing_kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = Service.turn

    def forgetful(self: Service, *args: Any) -> Any:
        done = turn(self, *args)
        for frames in done.replies.values():
            del frames[7:]
        return done

    monkeypatch.setattr(Service, "turn", forgetful)
    tally = dispatching.Dispatching("test").run(1_000, seconds_max=LONG_S, told=_silent)
    assert any("every request is answered" in each.signature for each in tally.failures)


def test_a_count_that_is_wrong_is_found() -> None:
    desk = Desk(0)
    desk.audit()
    desk.world.store.mailboxes.find(USERS[0]).waiting_bytes += 1
    with pytest.raises(Breach, match="bytes that wait"):
        desk.audit()


def test_a_line_with_a_fault_is_found(nothing_kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Commands, line: text.Line) -> Any:
        raise LookupError

    monkeypatch.setattr(Commands, "_user_on", broken)
    tally = door.Knocking("test").run(500, seconds_max=LONG_S, told=_silent)
    assert any("no line is a fault" in each.signature for each in tally.failures)


def test_a_process_that_is_brought_down_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    tally = run_all([Order("no such kind", "test", 1, LONG_S)], _silent)
    assert tally.dead == 1
    assert not tally.holds
    assert "ended with 1" in tally.failures[0].signature


# --- its parts -------------------------------------------------------------------------------


def test_every_command_is_made_valid_by_the_grammar() -> None:
    good: dict[str, int] = dict.fromkeys(COMMANDS, 0)
    grammar = Grammar(Random(1))
    for _ in range(20_000):
        frame = grammar.request()
        try:
            _, command, _, args = check_request(decode_requests(frame)[0][0])
            TABLE[command].parse(args)
        except (WireError, KeyError):
            continue
        good[command] += 1
    assert [command for command, times in good.items() if not times] == []
    assert fields_of("send") == fields_of("chat")


def test_mutations_repeat_by_their_seed_and_stay_in_bounds() -> None:
    def made(seed: int) -> list[bytes]:
        chance = Random(seed).random
        return [mutate(b"kotak" * 9, b"masuk" * 9, chance) for _ in range(2_000)]

    assert made(1) == made(1)
    assert made(1) != made(2)
    assert len(set(made(1))) > 1_500
    chance = Random(3).random
    assert all(len(mutate(b"", b"", chance)) <= BYTES_MAX for _ in range(500))
    assert len(mutate(b"x" * BYTES_MAX * 2, b"", chance)) <= BYTES_MAX


def test_new_arcs_are_told_from_old_ones() -> None:
    arcs = Arcs()
    frame = encode_request(encoder(), 1, "ping", None, {})
    with arcs.watch() as new:
        decode_requests(frame)
    assert new() > 0
    with arcs.watch() as new:
        decode_requests(frame)
    assert new() == 0
    with arcs.watch() as new, pytest.raises(WireError):
        decode_requests(b"\xc1")
    assert new() > 0


def test_a_run_repeats_by_its_seed(nothing_kept: Path) -> None:
    def fed(seed: str) -> list[bytes]:
        contents: list[bytes] = []
        target = parsers.TARGETS[0]._replace(check=contents.append)
        parsing.Parsing(seed, targets=(target,)).run(2_000, seconds_max=LONG_S, told=_silent)
        return contents

    assert fed("1") == fed("1")
    assert fed("1") != fed("2")


def test_what_was_done_is_added_up_and_a_known_fault_does_not_fail_a_run() -> None:
    one = Tally("x", inputs=1, seconds=1, growth_bytes=5, failures=[Failure("a", "x/1", "1")])
    two = Tally("x", inputs=2, seconds=2, failures=[Failure("a", "x/1", "1", times=2)])
    one.add(two)
    assert (one.inputs, one.seconds, one.growth_bytes) == (3, 2, 5)
    assert [each.times for each in one.failures] == [3]
    assert not one.holds
    one.failures[0].known = True
    assert one.holds
    one.growth_bytes = 20 * 2**20
    assert not one.holds


@pytest.mark.parametrize(
    "words",
    [
        *(["--parser", "x"], ["--processes", "0"], ["--minutes", "-1"], ["--atheris", "x"]),
        *(["--replay", "request/none"], ["--replay", "../x"], ["--parser", "-1"]),
    ],
)
def test_a_wrong_command_line_ends_with_2(words: list[str]) -> None:
    assert main(words) == 2


def test_the_command_shows_a_table_and_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "results.json"
    words = ["--parser", "500", "--processes", "1", "--json", str(file)]
    assert main(words) == 0, capsys.readouterr().out
    rows: Mapping[str, Any] = json.loads(file.read_text())
    assert [row["kind"] for row in rows["rows"]] == ["parsers"]
    assert rows["holds"]
    assert "parsers" in capsys.readouterr().out


def test_a_kept_case_is_shown_again(capsys: pytest.CaptureFixture[str]) -> None:
    (case, *_) = cases.OPEN.values() if cases.OPEN else _kept(cases.FOUND)
    assert main(["--replay", case]) == int(bool(cases.OPEN))
    assert capsys.readouterr().out.startswith("it fails" if cases.OPEN else "it holds")
