"""``scripts/scale NAME``: run one trial; without a name, list them.

A trial is a module of this package with ``HELP`` (a line) and ``main(argv)``, which returns the
exit code: 0 where what it looks for holds, 1 where it does not, 2 where it could not be tried.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

from tests.bench.crew import CrewError
from tests.load.broker_process import BrokerError
from tests.load.doors import UnreachableError
from tests.scale.node import RedisError

#: In the order of the list.
NAMES: Final = ("load", "fail", "roll", "throughput", "push", "units")
_EXIT_UNTRIED: Final = 2
_EXIT_INTERRUPTED: Final = 130


def main(words: Sequence[str]) -> int:
    """Run the trial that the first word names, with the others. Returns its exit code."""
    name, *rest = words or ["--help"]
    if name in ("-h", "--help"):
        _say("usage: scripts/scale NAME [OPTIONS]; NAME --help says more\n")
        for known in NAMES:
            _say(f"  {known:12}{import_module(f'{__package__}.{known}').HELP}")
        return 0
    if name not in NAMES:
        sys.stderr.write(f"scale: there is no {name!r}, but {', '.join(NAMES)}\n")
        return _EXIT_UNTRIED
    try:
        return int(import_module(f"{__package__}.{name}").main(rest))
    except (RedisError, BrokerError, UnreachableError, CrewError) as error:
        sys.stderr.write(f"scale: {error}\n")
        return _EXIT_UNTRIED
    except KeyboardInterrupt:
        sys.stderr.write("scale: interrupted\n")
        return _EXIT_INTERRUPTED


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    # Ended by a service manager or by Ctrl-C: either way nothing is left running.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
