"""Runs: messages of one sender that come one behind the other in a frame, handled in one step.

What is the same for all of them (whose token it is, whether anything is taken now) is then found
out once, and the store places them in one loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

from broker.wire.commands import ChatArgs, parse_chat
from broker.wire.envelope import check_request
from broker.wire.errors import WireError
from broker.wire.limits import REQUEST_ID_MAX

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
    ids: list[int] = []
    letters: list[ChatArgs] = []
    command = token = ""
    try:
        _, command, its_token, _ = check_request(requests[start])
        if command not in _NAMES or its_token is None:
            return None
        token = its_token
        for request in islice(requests, start, None):
            # Hot path: of what equals the first one's, nothing is checked again (0.3 us).
            if type(request) is not tuple or len(request) != 4:
                break
            request_id, named, its_token, fields = request
            if (
                named != command
                or its_token != token
                or type(request_id) is not int
                or not 0 <= request_id <= REQUEST_ID_MAX
                or type(fields) is not dict
            ):
                break
            letters.append(parse_chat(fields))
            ids.append(request_id)
    except WireError:
        pass  # of the one behind the run, which will be refused when its turn comes
    return Run(command, token, ids, letters) if ids else None
