"""``scripts/hostile NAME``: run one trial; without a name, list them.

A trial is a module of this package with ``HELP`` (a line) and ``main(argv)``, which returns the
exit code: 0 where what it looks for holds, 1 where it does not, 2 for a wrong command line.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Final, NamedTuple

#: In the order of the list; one that is not there is not shown.
NAMES: Final = ("crowd", "fuzz", "logins", "backups", "canary")


class Trial(NamedTuple):
    """One thing that can be run."""

    name: str
    help: str
    main: Callable[[Sequence[str]], int]


def trials() -> dict[str, Trial]:
    """Return the trials that there are, by name."""
    found = [_trial(name) for name in NAMES if find_spec(f"{__package__}.{name}")]
    return {trial.name: trial for trial in found}


def _trial(name: str) -> Trial:
    module = import_module(f"{__package__}.{name}")
    return Trial(name, module.HELP, module.main)


def main(words: Sequence[str]) -> int:
    """Run the trial that the first word names, with the others. Returns its exit code."""
    known = trials()
    name, *rest = words or ["--help"]
    if name in ("-h", "--help"):
        _say("usage: scripts/hostile NAME [OPTIONS]; NAME --help says more\n")
        for trial in known.values():
            _say(f"  {trial.name:10}{trial.help}")
        return 0
    if name not in known:
        sys.stderr.write(f"hostile: there is no {name!r}, but {', '.join(known)}\n")
        return 2
    try:
        return known[name].main(rest)
    except KeyboardInterrupt:
        sys.stderr.write("hostile: interrupted\n")
        return 130


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    # Ended by a service manager or by Ctrl-C: either way nothing is left running.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
