"""``scripts/loadtest``: plan, run, report."""

from __future__ import annotations

import signal
import sys

from rich.console import Console

from tests.load.broker_process import BrokerError
from tests.load.doors import UnreachableError
from tests.load.plan import parse
from tests.load.report import Display, print_json, print_table, report
from tests.load.run import run


def main() -> int:
    """Return 0 where every promise held, 1 where one was broken, 3 for a broker out of reach."""
    plan, as_json = parse()
    # Ended by a service manager or by Ctrl-C: either way nothing is left running.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
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
