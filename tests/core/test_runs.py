"""A run of messages means what its messages mean one by one: same answers, same mailboxes."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core.handlers import Policy
from broker.core.ports import StoreFullError, StoreLimits
from broker.core.rates import SendLimits
from broker.core.runs import run_at
from broker.wire.codec import unpack_reply
from broker.wire.envelope import join
from tests.core.fakes import ADMIN, LIMITS, World

FEW = StoreLimits(mailbox_messages_max=3, mailbox_bytes_max=30)
#: A command, whose token it comes with, and its arguments.
Asked = tuple[str, str | None, dict[str, Any]]
USERS = ("ann", "bob", "cid")
TOKENS = st.sampled_from(["ann", "ann", "bob", "bob", "obs", "nobody", None])
CHAT = st.fixed_dictionaries(
    {
        "to": st.sampled_from(["bob", "cid", "cid", "#den", "dora", ""]),
        "text": st.sampled_from(["hi", "hi", "hi", "ho", "x" * 20, "å", 7]),
        "id": st.sampled_from([f"m{number}" for number in range(9)]),
    },
    optional={"ttl_ms": st.sampled_from([1_000, 1]), "more": st.just(1)},
)
REQUESTS: st.SearchStrategy[Asked] = st.tuples(
    st.sampled_from(["chat", "chat", "chat", "send"]), TOKENS, CHAT
) | st.tuples(st.sampled_from(["ping", "kotakmasuk", "nonsense"]), TOKENS, st.just({}))
SENDS = st.sampled_from(
    [SendLimits(), SendLimits(message_bytes_max=4), SendLimits(rate_max=1, burst_max=1)]
)


class Twin(World):
    """A world with users, a room that ann is in, and cid, who takes nothing from bob."""

    def __init__(self, sends: SendLimits) -> None:
        super().__init__(Policy(sessions=LIMITS, sends=sends), limits=FEW)
        self.tokens: dict[str | None, str | None] = {user: self.user(user) for user in USERS}
        self.tokens |= {"obs": self.user("obs"), "nobody": "no token of anybody's", None: None}
        self.ok("user_role", ADMIN, user="obs", role="observer")
        self.ok("room_create", self.tokens["ann"], room="#den")
        self.ok("block", self.tokens["cid"], user="bob")

    def written(self, asked: list[Asked]) -> list[bytes]:
        return [
            msgpack.packb([number, command, self.tokens[who], args])
            for number, (command, who, args) in enumerate(asked)
        ]

    def answers(self, message: list[bytes]) -> dict[int, list[Any]]:
        """Return the answers by request, without what differs between any two stores."""
        turn = self.service.turn([(b"r", message)], [], self.now_ms)
        decoded = [unpack_reply(frame) for frame in turn.replies.get(b"r", [])]
        flat = [one for each in decoded for one in (each if type(each[0]) is list else [each])]
        for _, _, body in flat:
            body.pop("epoch", None)
        return {request_id: answer for request_id, *answer in flat}

    def mailboxes(self) -> list[list[tuple[int, str, str]]]:
        # Through the store, since reading through the service would count against somebody.
        with self.store.batch():
            pages = [self.store.read(user, "", 0, 100, 10_000) for user in USERS]
        return [[(each.seq, each.sender, each.text) for each in page.messages] for page in pages]


@settings(max_examples=300)
@given(st.lists(REQUESTS, min_size=2, max_size=20), SENDS)
def test_requests_that_share_a_frame_are_answered_as_those_that_do_not(
    asked: list[Asked], sends: SendLimits
) -> None:
    joined, single = Twin(sends), Twin(sends)
    assert joined.answers([join(joined.written(asked))]) == single.answers(single.written(asked))
    assert joined.mailboxes() == single.mailboxes()
    assert joined.service.requests == single.service.requests, "they are counted alike"


def test_a_batch_that_fails_takes_its_runs_back() -> None:
    twin = Twin(SendLimits())
    asked: list[Asked] = [
        ("chat", "ann", {"to": to, "text": "hi", "id": f"m{number}"})
        for number, to in enumerate(["bob", "cid", "bob", "#den", "ann"])
    ]
    before = twin.mailboxes()
    twin.store.commit_faults = [StoreFullError(), StoreFullError()]
    assert {answer[1]["code"] for answer in twin.answers([join(twin.written(asked))]).values()} == {
        "storage_full"
    }
    assert twin.mailboxes() == before
    again = twin.answers([join(twin.written(asked))])
    assert [answer[0] for answer in again.values()] == ["OK"] * 5
    assert sum(map(len, twin.mailboxes())) == 5, "their ids are forgotten too"


def test_a_bug_in_a_run_is_an_answer_to_each(monkeypatch: pytest.MonkeyPatch) -> None:
    twin = Twin(SendLimits())

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(twin.store, "append_all", broken)
    asked: list[Asked] = [
        ("chat", "ann", {"to": "bob", "text": "hi", "id": f"m{number}"}) for number in range(3)
    ]
    answers = twin.answers([join(twin.written([*asked, ("ping", None, {})]))])
    assert [answer[1].get("code") for answer in answers.values()] == ["internal"] * 3 + [None]


def test_a_run_ends_where_the_sender_the_command_or_the_good_form_does() -> None:
    fields = {"to": "bob", "text": "hi", "id": "m1"}
    mine, others = (1, "chat", "mine", fields), (2, "chat", "others", fields)
    for end in (others, (3, "send", "mine", fields), (4, "ping", "mine", {}), "what", (5,)):
        run = run_at([mine, mine, end, mine], 0)
        assert run is not None
        assert run.ids == [1, 1]
    no_runs: list[Any] = [
        (6, "ping", None, {}),
        (7, "chat", None, fields),
        (8, "chat", "mine", {}),
        0,
    ]
    assert [run_at([mine, each], 1) for each in no_runs] == [None] * 4
