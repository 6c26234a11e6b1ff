"""``scripts/loadtest``: plan, run, report; and the trials that its first word may name."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from rich.console import Console

from tests.bench import room, stalled
from tests.load.broker_process import BrokerError
from tests.load.doors import UnreachableError
from tests.load.plan import parse
from tests.load.report import Display, print_json, print_table, report
from tests.load.run import run

_TRIALS: Final[Mapping[str, Callable[[Sequence[str]], int]]] = {
    "stalled": stalled.main,
    "room": room.main,
}


def main() -> int:
    """Carry out a trial, or a load; return the exit code."""
    # Ended by a service manager or by Ctrl-C: either way nothing is left running.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    words = sys.argv[1:]
    if words and words[0] in _TRIALS:
        return _TRIALS[words[0]](words[1:])
    return _load()


def _load() -> int:
    """Return 0 where every promise held, 1 where one was broken, 3 for a broker out of reach."""
    plan, as_json = parse()
    console = Console()
    try:
        with Display(plan, Console(stderr=True) if as_json else console) as display:
            outcome = run(plan, display.show)
    except (BrokerError, UnreachableError) as error:
        print(f"loadtest: {error}", file=sys.stderr)  # noqa: T201 - the command's own words
        return 3
    except KeyboardInterrupt:
        print("loadtest: interrupted", file=sys.stderr)  # noqa: T201 - as above
        return 130
    result = report(plan, outcome)
    if as_json:
        print_json(result)
    else:
        print_table(result, console)
    return result.exit_code


if __name__ == "__main__":
    sys.exit(main())
