"""docs/SECURITY.md keeps to the code: figures, files, and what the trial with canaries allows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from broker.audit import FILE_BYTES_MAX, OLD_FILES_MAX
from broker.core import attempts, shared_rates
from broker.core.attempts import AttemptLimits
from broker.core.rates import SendLimits
from broker.core.service import SLOW_REQUESTS_MAX
from broker.core.trail import NOT_SHOWN
from broker.stores.memory import MemoryStore
from broker.transports.status import REQUEST_MS, REQUESTS_MAX
from broker.wire.limits import LINE_BYTES_MAX
from tests.canaries import Kind
from tests.hostile.canary_evidence import PLACES
from tests.sandboxed import UNIT

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = (ROOT / "docs/SECURITY.md").read_text()


def row(beginning: str) -> list[str]:
    """Return the cells of the table row that begins so."""
    (found,) = [line for line in PAGE.splitlines() if line.startswith(f"| {beginning} |")]
    return [cell.strip() for cell in found.strip("|").split(" | ")]


def test_the_limits_of_guessing_are_those_of_the_code() -> None:
    limits = AttemptLimits()
    one = row("one user from one address")
    assert one[1].startswith(f"{limits.failures_max} wrong")
    delays = f"{attempts.DELAY_MS // 1_000}, 2, 4 ... {attempts.DELAY_MS_MAX // 1_000} s"
    assert delays in one[2]
    assert f"after {attempts.FORGET_MS // 60_000} minutes" in one[2]
    address = row("one address, over all users")
    assert address[1].startswith(f"{limits.address_failures_max} ")
    assert f"one every {attempts.ADDRESS_REFILL_MS // 1_000} s" in address[2]
    user = row("one user, over all addresses")
    assert user[1] == str(attempts.USER_FAILURES_MAX)
    assert f"wait {attempts.TURN_MS // 1_000} s" in user[2]
    assert row("all users, all addresses")[1] == f"{attempts.ALL_FAILURES_MAX:,}".replace(",", " ")
    opened = row("accounts opened from one address")
    assert opened[1] == str(attempts.REGISTRATIONS_MAX)
    assert opened[2] == f"one every {attempts.REGISTRATION_REFILL_MS // 1_000} s"
    assert f"{attempts.ENTRIES_MAX:,} entries".replace(",", " ") in PAGE


def test_the_slack_of_limits_over_several_brokers_is_that_of_the_code() -> None:
    part = PAGE[PAGE.index("**Several brokers over one store**") : PAGE.index("## The audit")]
    text = " ".join(part.split())
    assert f"up to {SLOW_REQUESTS_MAX} for each further broker" in text
    assert f"{attempts.OWED_MAX} of these at most" in text
    assert f"for {attempts.FORGET_MS // 60_000} minutes the users and addresses" in text
    assert f"adds {shared_rates.AHEAD_MAX} messages to a burst (one in 50 of" in text
    assert f"quarter of a burst, {shared_rates.RESERVED_MAX} messages at most" in text
    limits = SendLimits(rate_max=1, burst_max=100)
    rates = shared_rates.SharedRates(limits, MemoryStore())
    assert (rates._ahead_max, rates._reserved_max) == (100 // 50, 100 // 4)


def test_other_figures_are_those_of_the_code() -> None:
    assert f"{SLOW_REQUESTS_MAX} requests may wait" in PAGE
    assert f"{FILE_BYTES_MAX // 1_048_576} MiB a file, nine former ones" in PAGE
    assert OLD_FILES_MAX == 9
    assert f"`{NOT_SHOWN}`" in PAGE
    assert f"a line is cut at {LINE_BYTES_MAX:,} bytes".replace(",", " ") in PAGE
    assert f"{REQUESTS_MAX} requests at a time" in PAGE
    assert f"{REQUEST_MS // 1_000} s. What was asked" in PAGE


def test_where_secrets_may_be_is_what_the_trial_allows() -> None:
    table = PAGE[PAGE.index("## Where secrets are") : PAGE.index("`scripts/hostile canary` shows")]
    columns = {place.split(": ")[1]: kinds for place, kinds in PLACES.items() if ": " in place}
    for column, kind in (("messages.text", Kind.BODY), ("accounts.password_hash", Kind.HASH)):
        assert f"`{column}`" in table
        assert columns[column] == {kind}
    assert re.search(r"^\| passwords \| nothing \|", table, re.MULTILINE)


def test_the_unit_that_is_named_is_there() -> None:
    assert f"../packaging/{UNIT.name}" in PAGE
    assert UNIT.exists()
