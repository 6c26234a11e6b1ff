"""``kotak migrate``: from the data folder of a stopped broker to Redis."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from broker.cli.parsing import Subparsers
from broker.cli.settings import FOLDER_SETTINGS, add_settings, load_settings
from broker.exits import Exit, ExitError

_MIGRATE: Final = """\
Move everything from the data folder of a stopped broker to Redis or Valkey, so that any number of
brokers can serve it.

  SOURCE   sqlite:PATH or sqlite:///PATH, a data folder or the kotak.db in it; the folder alone will
           do; sqlite: is the folder that the settings name
  TARGET   as --store has it: redis://HOST[:PORT][?prefix=NAME], redis+cluster://HOST,HOST, ...

Moved are users with their passwords and roles, login keys, blocks, sessions (tokens stay good),
rooms with members and invitations, and all messages that are kept, read or unread, with their
sequences, times and expiry, every cursor, and the ids that are remembered: clients keep their
positions, a message that is sent again is still known, and nobody is told of a loss.

The source is read and left as it is. The target's prefix must be empty. Where it is cut short, run
the same command again: it goes on. At the end both sides are read through and compared. That it
was moved is noted in the target, and another run does nothing.

Then start the brokers with --store TARGET, and none on SOURCE any more: what is stored there after
the move stays there.
"""
_EXITS: Final = """\
exit codes: 0 moved, and both sides are the same (or they were before); 1 they differ, or the target
holds other data, or is full; 2 the command line, or how the target is set; 3 the target does not
answer; 5 the source cannot be used, or a broker runs on it."""

#: What the bar says of each phase.
_WORDS: Final = {
    "members": "Moving members of rooms",
    "keys": "Moving login keys",
    "comparing": "Comparing both sides",
}
#: Mailboxes that are named where the sides differ.
_NAMED: Final = 10
_AGAIN: Final = "Run the same command again: it goes on"


def add_migrate(commands: Subparsers) -> None:
    """Add ``kotak migrate``."""
    parser = commands.add_parser(
        "migrate",
        usage="kotak migrate SOURCE TARGET [--dry-run] [--json]",
        description=_MIGRATE,
        epilog=_EXITS,
    )
    parser.add_argument("source", metavar="SOURCE", help="where everything is")
    parser.add_argument("target", metavar="TARGET", help="where it is to be")
    parser.add_argument(
        "--dry-run", action="store_true", help="read everything, write nothing, say what there is"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    add_settings(parser, FOLDER_SETTINGS)
    parser.set_defaults(run=_migrate)


def _migrate(args: argparse.Namespace) -> int:
    from broker.core.dedup import DedupLimits
    from broker.core.ports import StoreLimits, StoreUnusableError
    from broker.stores import place_of
    from broker.stores.folder import DataFolder

    config = load_settings(args).config
    path = _folder(args.source, config.data)
    if not args.target.startswith("redis"):
        raise ExitError(Exit.USAGE, "the target is a Redis: redis://HOST[:PORT][?prefix=NAME]")
    limits = StoreLimits(
        retention_read_ms=config.retention_read_ms,
        dedup=DedupLimits(ids_max=config.dedup_ids_max, window_ms=config.dedup_window_ms),
    )
    try:
        place = place_of(args.target)
    except StoreUnusableError as error:
        raise ExitError(Exit.USAGE, str(error)) from None
    try:
        with DataFolder(path) as folder, _opened(folder.database, limits) as source:
            return _move(args, source, limits, place)
    except StoreUnusableError as error:
        raise ExitError(Exit.DATA_FOLDER, str(error)) from error


def _opened(database: Path, limits: Any) -> Any:
    """Return the source, every page of which has been looked at."""
    from broker.admin.printing import at_work
    from broker.stores.migration_source import Source

    with at_work("looking through the database"):
        return Source(database, ids_max=limits.dedup.ids_max)


def _folder(source: str, configured: Path) -> Path:
    """Return the data folder that is meant. Errors: `ExitError`."""
    from broker.stores.folder import DATABASE_FILE

    named = source.removeprefix("sqlite:")
    if named == source and ":" in source.partition("/")[0]:
        raise ExitError(Exit.USAGE, "the source is a data folder: sqlite:PATH, or the path alone")
    if named.startswith("//"):
        if not named.startswith("///"):
            raise ExitError(Exit.USAGE, "sqlite:// names no host: write sqlite:///PATH")
        named = "/" + unquote(named).lstrip("/")
    path = Path(named).expanduser() if named else configured
    if path.name == DATABASE_FILE and path.is_file():
        path = path.parent
    if path.is_file():
        raise ExitError(
            Exit.DATA_FOLDER,
            f"{path} is no data folder: give the folder, or the {DATABASE_FILE} in it. A backup is"
            " put into a folder first, by kotak admin restore",
        )
    if not (path / DATABASE_FILE).exists():
        raise ExitError(
            Exit.DATA_FOLDER, f"there is no {path / DATABASE_FILE}: give a broker's data folder"
        )
    return path


def _move(args: argparse.Namespace, source: Any, limits: Any, place: str) -> int:
    from broker.core.ports import StoreFailedError, StoreFullError, StoreUnavailableError
    from broker.stores.migration_target import Target, TargetTakenError

    with _linked(args.target) as (link, prefix):
        target = Target(link, prefix, limits)
        try:
            if args.dry_run:
                return _show_plan(args, source, target, place)
            return _carry_out(args, source, target, place)
        except TargetTakenError as error:
            raise ExitError(Exit.REFUSED, str(error)) from None
        except StoreUnavailableError as error:
            sentence = f"{place} answers no longer ({error}). {_AGAIN} when it does"
            raise ExitError(Exit.UNREACHABLE, sentence) from error
        except StoreFullError as error:
            sentence = f"{error}: give it more memory. {_AGAIN}"
            raise ExitError(Exit.REFUSED, sentence) from error
        except StoreFailedError as error:
            raise ExitError(Exit.REFUSED, f"{error}. {_AGAIN}") from error


@contextmanager
def _linked(url: str) -> Iterator[tuple[Any, str]]:
    """Yield the way to the target, whose settings are as a broker wants them, and the prefix."""
    from broker.core.ports import StoreUnusableError
    from broker.stores.redis.link import Link
    from broker.stores.redis.server import check_server
    from broker.stores.redis.url import parse_url

    where = parse_url(url)
    try:
        link = Link(where)
    except StoreUnusableError as error:
        raise ExitError(Exit.UNREACHABLE, str(error)) from error
    try:
        try:
            check_server(link, where)
        except StoreUnusableError as error:
            raise ExitError(Exit.USAGE, str(error)) from error
        yield link, where.prefix
    finally:
        link.close()


# --- what it says ----------------------------------------------------------------------------


def _show_plan(args: argparse.Namespace, source: Any, target: Any, place: str) -> int:
    from broker.admin.printing import late_bar, note
    from broker.stores.migration_check import KINDS, count

    record = target.look(source.identity)
    with late_bar() as tell:
        total, done = sum(source.rows().values()), 0

        def looked_at(more: int) -> None:
            nonlocal done
            done += more
            tell("Reading", total, done)

        counts = count(source, looked_at)
    rows = [{"what": KINDS[each.kind], "source": each.source} for each in counts]
    _print(rows, ("what", "source"), as_json=args.json)
    _note_left(source)
    if record is None:
        note(f"{place} is empty under this prefix: nothing was written")
    elif record.ended_ms is None:
        note(f"a run was cut short at {record.phase}: the next one goes on there")
    else:
        note(_moved_before(record.ended_ms))
    return Exit.OK


def _carry_out(args: argparse.Namespace, source: Any, target: Any, place: str) -> int:
    from broker.admin.printing import late_bar, note
    from broker.stores.migration import move

    try:
        with late_bar() as tell:
            moved = move(source, target, watch=_named(tell))
    except KeyboardInterrupt:
        note(f"cut short. {_AGAIN}")
        raise
    if moved.verdict is None:
        note(_moved_before(moved.before_ms))
        return Exit.OK
    _show_verdict(moved.verdict, as_json=args.json)
    if not moved.verdict.same:
        _note_differences(moved.verdict.differing)
        return Exit.REFUSED
    _note_left(source)
    note(f"moved to {place}: start brokers with --store there, and none on the source any more")
    return Exit.OK


def _show_verdict(verdict: Any, *, as_json: bool) -> None:
    from broker.stores.migration_check import KINDS

    rows: list[dict[str, Any]] = [
        {"what": KINDS[kind], "source": source, "target": target}
        for kind, source, target in verdict.counts
    ]
    source, target = verdict.digests
    rows.append({"what": "digest of everything", "source": source[:16], "target": target[:16]})
    right = verdict.mailboxes - len(verdict.differing)
    rows.append({"what": "mailboxes the same", "source": verdict.mailboxes, "target": right})
    for row in rows:
        row["same"] = "yes" if row["source"] == row["target"] else "NO"
    _print(rows, ("what", "source", "target", "same"), as_json=as_json)


def _print(rows: Sequence[dict[str, Any]], fields: Sequence[str], *, as_json: bool) -> None:
    from broker.admin.printing import Column, print_list

    headings = {"what": "", "source": "source", "target": "target", "same": "same"}
    columns = [Column(headings[each], each, right=each in ("source", "target")) for each in fields]
    print_list(rows, columns, as_json=as_json, empty="")


def _note_left(source: Any) -> None:
    from broker.admin.printing import counted, note

    left = source.left_behind()
    if left:
        note(f"left behind: {counted(left, 'message')} of rooms that are gone, which nobody reads")
    note("backups, the audit log and the settings stay where they are")


def _note_differences(names: Sequence[str]) -> None:
    from broker.admin.printing import note, plain

    shown = ", ".join(plain(each) for each in names[:_NAMED])
    more = ", ..." if len(names) > _NAMED else ""
    note(
        f"the two sides differ, in mailboxes: {len(names)} ({shown}{more})."
        " Serve nothing from the target: does somebody else write to it? Move everything again,"
        " under another prefix (?prefix=NAME)"
    )


def _moved_before(at_ms: int | None) -> str:
    from broker.admin.printing import local_time

    return f"everything was moved before, by {local_time(at_ms or 0)}: nothing was done"


def _named(
    tell: Callable[[str, int, int], None],
) -> Callable[[str, int, int], None]:
    """Return what a phase of the move is told to, which the bar calls by its words."""
    return lambda phase, total, done: tell(_WORDS.get(phase, f"Moving {phase}"), total, done)
