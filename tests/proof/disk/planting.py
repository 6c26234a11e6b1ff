"""A planted bug in the process of one life, for the check of the checker."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

#: Until the process ends.
_PLANTED: Final = ExitStack()


def plant(name: str) -> None:
    """Switch on the bug of that name for good."""
    # Only here: a bug's module imports clients and servers, which a life has no use for.
    from tests.proof.seeded.bugs import BUGS, POWER_BUGS

    (bug,) = (bug for bug in (*BUGS, *POWER_BUGS) if bug.name == name)
    _PLANTED.enter_context(bug.plant())
