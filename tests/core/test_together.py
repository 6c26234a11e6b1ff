"""Several requests in one frame: handled in order, each answered, the short answers together."""

from __future__ import annotations

from typing import Any

import msgpack

from broker.core.ports import StoreFailedError, StoreLimits
from broker.wire.codec import unpack_reply
from broker.wire.envelope import join
from broker.wire.errors import Code
from tests.core.fakes import World


def replies(world: World, frames: list[bytes], route: bytes = b"r") -> list[list[Any]]:
    """Take one turn with a message; return what each frame of the answer holds."""
    turn = world.service.turn([(route, frames)], [], world.now_ms)
    return [unpack_reply(frame) for frame in turn.replies.get(route, [])]


def chats(world: World, token: str, count: int) -> list[bytes]:
    return [world.frame("chat", token, to="bob", text=f"{n}", id=f"m{n}") for n in range(count)]


def test_joined_chats_are_stored_in_order_and_their_receipts_share_a_frame(world: World) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    (together,) = replies(world, [join(chats(world, ann, 3))])
    assert [status for _, status, _ in together] == ["OK", "OK", "OK"]
    assert [body["seq"] for _, _, body in together] == [1, 2, 3]
    inbox = world.ok("kotakmasuk", bob)
    assert [each["text"] for each in inbox["messages"]] == ["0", "1", "2"]


def test_single_frames_get_single_answers(world: World) -> None:
    ann = world.user("ann")
    world.user("bob")
    answers = replies(world, chats(world, ann, 2))
    assert [status for _, status, _ in answers] == ["OK", "OK"]


def test_an_error_among_them_is_one_answer_and_the_others_go_on(world: World) -> None:
    ann = world.user("ann")
    world.user("bob")
    first, last = chats(world, ann, 2)
    (together,) = replies(world, [join([first, world.frame("chat", ann, to="bob"), last])])
    assert [status for _, status, _ in together] == ["OK", "ERROR", "OK"]
    assert together[1][2]["code"] == Code.BAD_REQUEST


def test_what_is_no_request_among_them_is_told_by_its_id_where_it_has_one(world: World) -> None:
    ann = world.user("ann")
    world.user("bob")
    first, last = chats(world, ann, 2)
    spoilt = [msgpack.packb([77, "ping", None, "no map"]), msgpack.packb(["what", "is", "this"])]
    (together,) = replies(world, [join([first, *spoilt, last])])
    assert [status for _, status, _ in together] == ["OK", "ERROR", "ERROR", "OK"]
    assert [reply[0] for reply in together[1:3]] == [77, None]
    assert {reply[2]["code"] for reply in together[1:3]} == {Code.BAD_REQUEST}


def test_what_may_be_long_has_a_frame_of_its_own(world: World) -> None:
    ann = world.user("ann")
    world.user("bob")
    frames = [*chats(world, ann, 1), world.frame("kotakmasuk", ann), world.frame("user_on", ann)]
    together, inbox, users = replies(world, [join(frames)])
    assert together[0][1] == "OK"
    assert "messages" in inbox[2]
    assert "users" in users[2]


def test_a_slow_one_among_them_is_answered_later(world: World) -> None:
    ann = world.user("ann")
    login = world.frame("login", user="ann", password="password")
    assert len(replies(world, [join([login, world.frame("ping", ann)])])) == 1


def test_only_the_peer_that_asked_so_is_answered_so(world: World) -> None:
    ann = world.user("ann")
    world.user("bob")
    one, two, three = chats(world, ann, 3)
    turn = world.service.turn([(b"a", [join([one, two])]), (b"b", [three])], [], world.now_ms)
    assert len(unpack_reply(turn.replies[b"a"][0])) == 2
    assert unpack_reply(turn.replies[b"b"][0])[1] == "OK"


def test_an_array_that_is_not_alone_in_its_message_is_not_carried_out(world: World) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    one, two, three = chats(world, ann, 3)
    refused, single = replies(world, [join([one, two]), three])
    assert (refused[0], refused[2]["code"]) == (None, Code.BAD_REQUEST)
    assert single[1] == "OK"
    assert [each["text"] for each in world.ok("kotakmasuk", bob)["messages"]] == ["2"]


def test_a_store_that_fails_answers_each_of_them(world: World) -> None:
    ann = world.user("ann")
    world.user("bob")
    world.store.commit_faults = [StoreFailedError()]
    (together,) = replies(world, [join(chats(world, ann, 3))])
    assert [body["code"] for _, _, body in together] == [Code.UNAVAILABLE] * 3


def test_pages_that_are_asked_for_at_once_are_bounded_in_bytes() -> None:
    world = World(limits=StoreLimits())
    ann = world.user("ann")
    for number in range(16):
        world.ok("chat", ann, to="ann", text="x" * 65_536, id=f"m{number}")
    frames = [world.frame("kotakmasuk", ann), world.frame("history", ann)] * 4
    answers = replies(world, [join(frames)])
    codes = [body["code"] for _, _, body in answers[0]]
    pages = [answer for answer in answers if answer[1] == "OK"]
    assert (len(pages), codes) == (4, [Code.BUSY] * 4)
    assert world.ok("kotakmasuk", ann)["messages"], "the next turn has room again"
