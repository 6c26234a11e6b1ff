"""What of the rot is proved in one go."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from broker.exits import Exit
from broker.stores.sqlite_epoch import WITNESS_NAME
from broker.stores.sqlite_journal import JOURNAL_NAME
from tests.e2e.program import contents, run
from tests.proof.disk.model import put_back
from tests.proof.disk.prove import Row
from tests.proof.disk.running import scratch
from tests.proof.part import Part, Show, Size, Work, row
from tests.proof.rot.damage import Damage, Kind, commits_in, damage, last_record
from tests.proof.rot.folders import DATABASE_FILE, Folder, make_folders, used_bytes
from tests.proof.rot.start import FORBIDDEN, Found, Outcome, start

LOG_FILE: Final = f"{DATABASE_FILE}-wal"
#: Refusals that the whole program is asked for, one of each sentence.
_PROGRAMS_MAX: Final = 8
_FILES: Final = {
    "database": DATABASE_FILE,
    "log": LOG_FILE,
    "journal": JOURNAL_NAME,
    "witness": WITNESS_NAME,
}


@dataclass
class Rot:
    """What came of it, by outcome; ``programs`` counts those that a whole broker was started on."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    programs: int = 0
    sentences: set[str] = field(default_factory=set)
    breaches: list[str] = field(default_factory=list)


def rot(file: str, seeds: int, seed: int, show: Callable[[int], None] = lambda _: None) -> Rot:
    """Damage one file of a folder ``seeds`` times, each time afresh."""
    result = Rot()
    with scratch() as place:
        folders = [f for f in make_folders(place, seed) if f.image.get(file)]
        for number in range(seeds):
            rng = random.Random(f"{seed}/{file}/{number}")
            folder = rng.choice(folders)
            content = folder.image[file]
            done = damage(file, content, used_bytes(content), rng)
            _one(place / folder.name, folder, done, result, number)
            show(number + 1)
    return result


def _one(place: Path, folder: Folder, done: Damage, result: Rot, number: int) -> None:
    image = {**folder.image, done.file: done.content}
    put_back(place, image)
    found = start(place, folder.content)
    if found.outcome is Outcome.LOST and _may_be_unfinished(folder, done):
        found = found._replace(outcome=Outcome.UNFINISHED)
    result.outcomes[found.outcome] += 1
    where = f"seed {number}, {folder.name}, {done}"
    if found.outcome in FORBIDDEN:
        result.breaches.append(f"{where}: {found.outcome}: {found.told}")
    elif found.outcome is Outcome.REFUSED:
        put_back(place, image)
        result.breaches += [f"{where}: {each}" for each in _refusal(place, found, result)]


def _may_be_unfinished(folder: Folder, done: Damage) -> bool:
    """Tell whether a power cut could have left this: the last commit, or less of a log.

    Or whether nothing tells it from that: what has the last record of the journal in it as well.
    """
    if done.file == JOURNAL_NAME:
        cut = done.kind is Kind.CUT  # its length is known
        return not cut and done.end > last_record(folder.image[JOURNAL_NAME])
    if done.file != LOG_FILE:
        return False
    # A frame that lost its own mark of a commit does not count: hence of what is left of the log.
    whole = folder.image[LOG_FILE][:32] + done.content[32:]
    return done.kind is Kind.CUT or commits_in(whole, done.offset) <= 1


def _refusal(place: Path, found: Found, result: Rot) -> Iterator[str]:
    """Start the whole program on what was refused: one line, the exit code, nothing touched."""
    sentence = re.sub(r"/\S+", "PATH", found.told)
    if sentence in result.sentences or result.programs >= _PROGRAMS_MAX:
        return
    result.sentences.add(sentence)
    result.programs += 1
    before = contents(place)
    doors = ("--zmq", "tcp://127.0.0.1:0", "--text", "off", "--http", "off")
    ended = run("serve", "--data", str(place), *doors)
    said = [line for line in ended.err.splitlines() if " WARNING " not in line]
    if ended.code != Exit.DATA_FOLDER:
        yield f"refused by exit code {ended.code}: {ended.err}"
    if len(said) != 1 or not said[0].startswith("kotak: "):
        yield f"one line was wanted: {ended.err}"
    if contents(place).get(DATABASE_FILE) != before.get(DATABASE_FILE):
        yield "the database was changed by the start that refused it"


def _work(sizes: Mapping[str, int], seed: int, show: Show) -> Iterator[Work]:
    for name, file in _FILES.items():
        if sizes[name]:
            yield partial(_row, file, sizes[name], seed, show)


def _row(file: str, seeds: int, seed: int, show: Show) -> Row:
    what = f"rot in {file}"
    done = rot(file, seeds, seed, lambda number: show(what, number, seeds))
    told = ", ".join(f"{number}x {outcome}" for outcome, number in done.outcomes.most_common())
    return row(what, f"{seeds} seeds", done.breaches, told, outcomes=dict(done.outcomes))


ROT: Final = Part(
    "rot",
    "Damage the files of a folder at rest, and start on it.",
    {
        "database": Size(100, "damages to kotak.db"),
        "log": Size(80, "damages to kotak.db-wal"),
        "journal": Size(80, "damages to kotak.journal"),
        "witness": Size(20, "damages to kotak.seen"),
    },
    _work,
)
