"""Who somebody is follows from the token: neither a routing id nor a number opens anything else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from broker.wire.errors import Code
from broker.wire.limits import SEQ_MAX
from clients import Client
from tests.e2e.program import Serving, connect
from tests.e2e.raw_peer import RawPeer

#: For nothing to come in.
SILENCE_MS = 300


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    data: Path = tmp_path_factory.mktemp("identities") / "data"
    with Serving(data, "--demo", "--store", "memory:") as broker:
        yield broker
        assert broker.stop().code == 0


@pytest.fixture
def alice(broker: Serving) -> Iterator[RawPeer]:
    with RawPeer(broker.zmq) as peer:
        yield peer


@pytest.fixture
def mallory(broker: Serving) -> Iterator[RawPeer]:
    with RawPeer(broker.zmq) as peer:
        yield peer


def texts(peer: RawPeer, token: str) -> list[str]:
    page = peer.ask(peer.request("kotakmasuk", token)).result
    return [message["text"] for message in page["messages"]]


def send(peer: RawPeer, token: str, to: str, text: str) -> int:
    sent = peer.ask(peer.request("chat", token, to=to, text=text, id=text))
    seq: int = sent.result["seq"]
    return seq


# --- routing ids ---------------------------------------------------------------------------------


def test_who_takes_a_routing_id_first_silences_its_owner_and_hears_nothing_of_it(
    broker: Serving,
) -> None:
    """Hence clients leave their id to chance (the next test)."""
    with RawPeer(broker.zmq, ROUTING_ID=b"alice") as squatter:
        assert squatter.ask(squatter.request("ping")).error is None
        with RawPeer(broker.zmq, ROUTING_ID=b"alice") as victim:
            victim.send([victim.request("login", user="afif", password="plp")])
            assert victim.silent(SILENCE_MS)
            assert squatter.silent(0)
            assert squatter.ask(squatter.request("ping")).error is None


def test_a_client_of_the_library_has_no_routing_id_that_could_be_taken(broker: Serving) -> None:
    with (
        RawPeer(broker.zmq, ROUTING_ID=b"shafwa") as one,
        RawPeer(broker.zmq, ROUTING_ID=b"kotak") as other,
        connect(broker) as client,
    ):
        for squatter in (one, other):
            assert squatter.ask(squatter.request("ping")).error is None
        assert client.ping() > 0
        assert client._pump.link
        assert client._pump.link.socket.getsockopt(zmq.ROUTING_ID) == b""


def test_a_token_is_good_through_another_connection_and_a_routing_id_for_nothing(
    broker: Serving, alice: RawPeer
) -> None:
    token = alice.login("shafwa", "mks")
    with RawPeer(broker.zmq, ROUTING_ID=b"shafwa") as namesake:
        assert namesake.refusal(namesake.request("kotakmasuk")) == Code.UNAUTHORIZED
        assert namesake.ask(namesake.request("kotakmasuk", token)).error is None


def test_the_sender_is_the_sessions_whatever_a_request_says(
    alice: RawPeer, mallory: RawPeer
) -> None:
    token, stolen = alice.login("shafwa", "mks"), mallory.login("mamang", "jkt")
    forged = {"to": "shafwa", "text": "from fadly, surely", "id": "forged", "from": "fadly"}
    assert mallory.refusal(mallory.request("chat", stolen, **forged)) == Code.BAD_REQUEST
    del forged["from"]
    assert mallory.ask(mallory.request("chat", stolen, **forged)).error is None
    page = alice.ask(alice.request("kotakmasuk", token)).result["messages"]
    assert [message["from"] for message in page] == ["mamang"]
    alice.ask(alice.request("ack", token, seq=page[-1]["seq"]))


# --- what belongs to others ----------------------------------------------------------------------


def test_acknowledging_anothers_message_takes_nothing_and_tells_nothing(
    alice: RawPeer, mallory: RawPeer
) -> None:
    """Whatever number is given, the answer depends on the own mailbox alone."""
    token, foreign = alice.login("fadly", "prp"), mallory.login("mamang", "jkt")
    seq = send(alice, token, "fadly", "mine")
    for number in (seq, seq + 1, SEQ_MAX):
        own = mallory.ask(mallory.request("ack", foreign, seq=number)).result["cursor"]
        assert own < seq
    assert texts(alice, token) == ["mine"]
    own_seq = send(mallory, foreign, "mamang", "still to come")
    assert texts(mallory, foreign) == ["still to come"]
    mallory.ask(mallory.request("ack", foreign, seq=own_seq))
    assert texts(alice, token) == ["mine"]
    alice.ask(alice.request("ack", token, seq=seq))


@pytest.mark.parametrize("seq", ["foreign", "unknown"])
def test_where_anothers_message_stands_is_told_like_one_that_never_was(
    alice: RawPeer, mallory: RawPeer, seq: str
) -> None:
    token, foreign = alice.login("fadly", "prp"), mallory.login("mamang", "jkt")
    sent = send(alice, token, "fadly", f"private {seq}")
    asked = {"foreign": sent, "unknown": SEQ_MAX}[seq]
    request = mallory.request("status", foreign, to="fadly", seq=asked)
    assert mallory.refusal(request) == Code.NO_SUCH_MESSAGE
    alice.ask(alice.request("ack", token, seq=sent))


def test_two_sessions_of_one_reader_share_what_is_read_and_acknowledged(broker: Serving) -> None:
    """If one of them acknowledges, I expect the other to see it no more, from then on."""
    with (
        connect(broker, "afif", "plp") as one,
        Client(broker.zmq) as other,
        connect(broker) as sender,
    ):
        other.login("afif", "plp")
        seqs = [sender.send("afif", f"{number}").seq for number in range(3)]
        assert [message.text for message in other.inbox().messages] == ["0", "1", "2"]
        one.acknowledge(seqs[1])
        assert [message.text for message in other.inbox().messages] == ["2"]
        assert other.acknowledge(seqs[0]) == seqs[1]  # never back
        other.acknowledge(seqs[2])
        assert one.inbox().messages == []
