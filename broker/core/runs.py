"""Runs: messages of one sender that come one behind the other in a frame, handled in one step.

What is the same for all of them (whose token it is, whether anything is taken now) is then found
out once, and the store places them in one loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

from broker.wire.commands import ChatArgs
from broker.wire.envelope import check_request
from broker.wire.errors import WireError

_NAMES: Final = frozenset({"chat", "send"})


class Run(NamedTuple):
    """The letters of one token, with the ids of their requests; ``command`` as it was named."""

    command: str
    token: str
    ids: list[int]
    letters: list[ChatArgs]


def run_at(requests: Sequence[Any], start: int) -> Run | None:
    """Return the longest run that begins at ``requests[start]``; None where that is no message.

    Nothing that is refused for how it is written is in it, so that it is answered for itself.
    """
    command = token = None
    ids: list[int] = []
    letters: list[ChatArgs] = []
    parse = ChatArgs.parse
    try:
        for request in islice(requests, start, None):
            request_id, named, its_token, args = check_request(request)
            if named != command or its_token != token:
                if ids or named not in _NAMES or its_token is None:
                    break
                command, token = named, its_token
            letters.append(parse(args))
            ids.append(request_id)
    except WireError:
        pass  # of the one behind the run, which will be refused when its turn comes
    return Run(command, token, ids, letters) if ids and command and token is not None else None
