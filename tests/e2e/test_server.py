"""``kotak serve`` and ``kotak user`` as programs: how they start, refuse to start, end, recover."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import sqlite3
import stat
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import zmq

from broker.wire.errors import Code
from clients import Client
from clients.errors import Unauthorized
from clients.text_connection import TextConnection
from tests.e2e.program import (
    Ended,
    Program,
    Serving,
    complaint,
    connect,
    contents,
    eventually,
    refused,
    run,
)
from tests.e2e.raw_peer import RawPeer

GATEWAY_READY = re.compile(r"ready text=(\S+):(\d+) broker=")
WORD = "mks"  # shafwa's password


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


# --- starting ------------------------------------------------------------------------------------


def test_a_start_prints_an_introduction_and_then_one_line_with_every_door(data: Path) -> None:
    with Serving(data, "--demo") as broker:
        *introduction, ready = broker.out.splitlines()
        assert introduction[0].startswith("kotak ")
        assert str(data) in introduction[1]
        assert "shafwa/mks" in introduction[2]
        assert ready == f"ready zmq={broker.zmq} text={broker.text} http={broker.http}"
        assert broker.page("/healthz")[0] == 200
        with connect(broker) as client, TextConnection(*broker.text_address) as text:
            assert client.hello().durability == "fsync"
            assert text.login("fadly", "prp")["status"] == "OK"
        ended = broker.stop()
    assert ended.out.count("ready ") == 1
    assert ended.out.endswith(f"{ready}\n")


def test_doors_that_are_off_are_named_as_such(data: Path) -> None:
    with Serving(data, text="off", http="off") as broker:
        assert (broker.text, broker.http) == ("off", "off")
        assert broker.stop().code == 0


@pytest.mark.parametrize("door", ["zmq", "text", "http"])
def test_a_taken_address_is_one_line_and_leaves_nothing_behind(data: Path, door: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        ended = serve_in_vain(data, **{door: taken})
    assert ended.code == 4
    said = complaint(ended)
    assert taken in said
    assert f"choose another address with --{door} " in said
    assert said.count("ddress already in use") == 1
    assert said.count(taken) == 1
    assert not data.exists()


@pytest.mark.parametrize("door", ["zmq", "text", "http"])
def test_a_taken_address_changes_nothing_in_a_folder_that_was_there(data: Path, door: str) -> None:
    with Serving(data, "--demo") as broker:
        broker.stop()
    before = contents(data)
    with socket.create_server(("127.0.0.1", 0)) as other:
        ended = serve_in_vain(data, **{door: f"127.0.0.1:{other.getsockname()[1]}"})
    assert ended.code == 4
    assert complaint(ended)
    assert contents(data) == before


@pytest.mark.parametrize("wanted", ["192.0.2.1:9", "no.such.host.invalid:9"])
@pytest.mark.parametrize("door", ["text", "http"])
def test_an_address_that_is_not_ours_is_one_line(data: Path, door: str, wanted: str) -> None:
    ended = serve_in_vain(data, "--insecure-public", **{door: wanted})
    assert ended.code == 4
    assert f"the {door} door cannot open at {wanted}: " in complaint(ended)


def serve_in_vain(
    data: Path,
    *options: str,
    zmq: str = "127.0.0.1:0",
    text: str = "127.0.0.1:0",
    http: str = "127.0.0.1:0",
) -> Ended:
    """Run a broker that must not come up."""
    doors = ("--zmq", f"tcp://{zmq}", "--text", text, "--http", http)
    with Program("serve", "--data", str(data), *doors, *options) as program:
        return program.end()


def open_to_others(data: Path) -> None:
    data.mkdir()
    data.chmod(0o755)


def a_file(data: Path) -> None:
    data.write_text("not a folder")


def damaged(data: Path) -> None:
    with Serving(data, "--demo") as broker:
        broker.stop()
    database = data / "kotak.db"
    with database.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 8192)


def cut_short(data: Path) -> None:
    with Serving(data, "--demo") as broker:
        broker.stop()
    os.truncate(data / "kotak.db", 5_000)


def empty(data: Path) -> None:
    data.mkdir(mode=0o700)
    (data / "kotak.db").touch(0o600)


def foreign(data: Path) -> None:
    data.mkdir(mode=0o700)
    with sqlite3.connect(data / "kotak.db") as database:
        database.execute("CREATE TABLE diary (day)")
    database.close()
    (data / "kotak.db").chmod(0o600)


def newer(data: Path) -> None:
    with Serving(data, "--demo") as broker:
        broker.stop()
    with sqlite3.connect(data / "kotak.db") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (open_to_others, "chmod 700"),
        (a_file, "File exists"),
        (damaged, "estore a backup"),
        (cut_short, "estore a backup"),
        (empty, "restore a backup"),
        (foreign, "not a Kotak database"),
        (newer, "newer Kotak"),
    ],
)
def test_an_unusable_data_folder_is_one_line_and_stays_as_it_is(
    data: Path, spoil: Callable[[Path], None], said: str
) -> None:
    """The broker and ``kotak user`` say the same, and neither touches what is there."""
    spoil(data)
    before = contents(data)
    for ended in (serve_in_vain(data), run("user", "list", "--data", str(data))):
        assert ended.code == 5, ended
        assert str(data) in complaint(ended)
        if ended.err.count("there are no accounts") == 0:
            assert said in ended.err
    assert contents(data) == before


@pytest.mark.parametrize("where", ["/proc/kotak", "/dev/null/kotak"])
def test_a_folder_that_cannot_be_made_is_one_line(where: str) -> None:
    ended = serve_in_vain(Path(where))
    assert ended.code == 5
    assert f"the data folder {where} cannot be used" in complaint(ended)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_not_writable_is_one_line(data: Path) -> None:
    data.mkdir(mode=0o500)
    ended = serve_in_vain(data)
    assert ended.code == 5
    assert "Permission denied" in complaint(ended)


def test_a_second_broker_on_the_same_data_is_refused_and_the_first_goes_on(data: Path) -> None:
    with Serving(data, "--demo") as broker:
        published = (data / "admin.json").read_bytes()
        # On the very same doors, as who types the same command twice would have it.
        doors = {"zmq": broker.zmq.removeprefix("tcp://"), "text": broker.text, "http": broker.http}
        for ended in (serve_in_vain(data), serve_in_vain(data, **doors)):
            assert ended.code == 5
            assert "another broker is running" in complaint(ended)
        assert (data / "admin.json").read_bytes() == published
        with connect(broker) as client:
            assert client.send("fadly", "still here").durability == "fsync"
        assert broker.stop().code == 0


@pytest.mark.parametrize(
    "words",
    [
        ("--workers", "none"),
        ("--zmq", "here"),
        ("--store", "paper:"),
        ("--config", "/nowhere"),
        ("--no-such-setting",),
    ],
)
def test_a_wrong_setting_ends_with_2_and_makes_nothing(data: Path, words: tuple[str, ...]) -> None:
    ended = run("serve", "--data", str(data), *words)
    assert ended.code == 2
    assert ended.err.startswith("kotak: ")
    assert "Traceback" not in ended.err
    assert not data.exists()


# --- ending --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_good_order(data: Path, number: signal.Signals) -> None:
    with Serving(data) as broker:
        ended = broker.stop(number)
    assert ended.code == 0
    assert f"stopping on {number.name}" in ended.err
    assert "Traceback" not in ended.err


def test_sigterm_under_load_with_dead_and_silent_peers_loses_nothing(data: Path) -> None:
    """Given a client with a thousand messages under way, and peers that never read or have died,

    if the broker is told to stop and is started again,
    I expect an end within 5 s, and each message once and in order once the client has repeated
    what got no answer.
    """
    with ExitStack() as stack, Serving(data, "--demo") as broker:
        client = stack.enter_context(connect(broker))
        reader = stack.enter_context(connect(broker, "fadly", "prp"))
        stack.enter_context(unreading_dealer(broker.zmq, client))
        stack.enter_context(unreading_text_client(broker.text_address))
        dead_dealers(broker.zmq)
        stack.enter_context(socket.create_connection(broker.text_address)).sendall(b"login sha")
        host, _, port = broker.zmq.removeprefix("tcp://").rpartition(":")
        stack.enter_context(socket.create_connection((host, int(port))))
        pending = [client.submit("fadly", f"{n}") for n in range(1_000)]
        client.flush()
        ended = broker.stop()
        assert ended.code == 0, ended.err
        with broker.again() as restarted:
            receipts = [each.result() for each in pending]
            assert [receipt.durability for receipt in receipts] == ["fsync"] * 1_000
            assert [m.text for m in reader.inbox(limit=1_000).messages] == [
                str(n) for n in range(1_000)
            ]
            assert restarted.stop().code == 0


def unreading_dealer(address: str, client: Client) -> RawPeer:
    """Open a peer whose replies fill every buffer, since it never takes one."""
    for _ in range(20):
        client.send("shafwa", "x" * 60_000)
    peer = RawPeer(address, RCVHWM=1)
    for _ in range(200):
        peer.send([peer.request("kotakmasuk", client.token)])
    return peer


def unreading_text_client(address: tuple[str, int]) -> socket.socket:
    peer = socket.create_connection(address)
    peer.sendall(b"foo\r\n" * 100_000)
    return peer


def dead_dealers(address: str) -> None:
    """Leave requests behind whose senders are gone before they can be answered."""
    for _ in range(20):
        with RawPeer(address) as peer:
            peer.socket.setsockopt(zmq.LINGER, 100)
            peer.send([peer.request("ping")])


def test_requests_under_way_at_the_end_are_answered(data: Path) -> None:
    """A login that is being hashed when SIGTERM comes is finished, or refused for now."""
    with Serving(data, "--demo") as broker, RawPeer(broker.zmq) as peer:
        peer.send([peer.request("login", user="shafwa", password=WORD) for _ in range(8)])
        taken = 'kotak_requests_total{command="login"} 8.0'
        eventually(lambda: taken in broker.page("/metrics")[1])
        assert broker.stop().code == 0
        replies = [peer.reply() for _ in range(8)]
        assert sorted(reply.request_id or 0 for reply in replies) == list(range(1, 9))
        assert {reply.error.code for reply in replies if reply.error} <= {
            Code.UNAVAILABLE,
            Code.BUSY,  # so many passwords of one user at once
        }


def test_the_disk_fails_and_nothing_is_answered_ok(data: Path) -> None:
    """Given a broker whose files cannot grow any more,

    if a message is sent,
    I expect a refusal, the exit code of a failed disk, and after a start on a good disk the
    messages from before, and the refused one once it is repeated.
    """
    with Serving(data, "--demo") as broker:
        with RawPeer(broker.zmq) as peer:
            token = peer.login("shafwa", WORD)
            first = peer.request("chat", token, to="fadly", text="before", id="1")
            stored = peer.ask(first).result["seq"]
            # Every write fails (EFBIG), wherever in a file of whatever length.
            resource.prlimit(broker.process.pid, resource.RLIMIT_FSIZE, (0, -1))
            second = peer.request("chat", token, to="fadly", text="after", id="2")
            assert peer.refusal(second) == Code.UNAVAILABLE
        ended = broker.end()
        assert ended.code == 6
        assert "the disk failed" in ended.err.splitlines()[-1]
        assert "before" not in ended.err
        with broker.again() as restarted, Client(restarted.zmq, token=token) as client:
            assert client.send("fadly", "before", message_id="1").seq == stored
            assert client.send("fadly", "after", message_id="2").seq > stored
            with connect(restarted, "fadly", "prp") as reader:
                assert [m.text for m in reader.inbox().messages] == ["before", "after"]


# --- what survives -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_tokens_messages_cursors_and_the_order_of_logins_survive(
    data: Path, number: signal.Signals
) -> None:
    with Serving(data, "--demo") as broker:
        with connect(broker, "mamang", "jkt") as last, connect(broker) as sender:
            reader = connect(broker, "fadly", "prp")
            receipts = [sender.send("fadly", f"{n}", message_id=f"m{n}") for n in range(5)]
            reader.acknowledge(receipts[1].seq)
            last.logout()
            last.login("mamang", "jkt")
            online = [user.user for user in sender.users_on()]
            assert online == ["shafwa", "fadly", "mamang"]
            tokens = sender.token, reader.token
            reader.close()
        if number == signal.SIGKILL:
            broker.signal(number)
            broker.end()
        else:
            broker.stop()
        with (
            broker.again() as restarted,
            Client(restarted.zmq, token=tokens[0]) as sender,
            Client(restarted.zmq, token=tokens[1]) as reader,
        ):
            inbox = reader.inbox()
            assert [m.text for m in inbox.messages] == ["2", "3", "4"]
            assert inbox.cursor == receipts[1].seq
            assert [user.user for user in sender.users_on()] == online
            assert sender.send("fadly", "4", message_id="m4").seq == receipts[4].seq
            assert refused(lambda: sender.send("fadly", "else", message_id="m4")) == Code.CONFLICT
            assert sender.send("fadly", "5").seq > receipts[4].seq


def test_a_store_in_memory_says_so_and_forgets(data: Path) -> None:
    with Serving(data, "--demo", "--store", "memory:") as broker:
        assert "forgotten at the end" in broker.out
        with connect(broker) as client:
            assert client.send("fadly", "hai").durability == "memory"
            token = client.token
        assert set(contents(data)) == {"admin.json", "audit.log"}
        broker.stop()
        with (
            broker.again("--store", "memory:") as restarted,
            Client(restarted.zmq, token=token) as client,
            pytest.raises(Unauthorized),
        ):
            client.ping()


# --- what lies in the data folder ----------------------------------------------------------------


def test_everything_in_the_data_folder_is_for_its_owner_only(data: Path) -> None:
    old = os.umask(0)  # what a careless service unit may set
    try:
        with Serving(data, "--demo") as broker, connect(broker) as client:
            client.send("fadly", "hai")
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in data.iterdir()}
            assert stat.S_IMODE(data.stat().st_mode) == 0o700
            assert {"kotak.db", "kotak.db-wal", "broker.lock", "admin.json"} <= set(modes)
            assert set(modes.values()) == {0o600}
    finally:
        os.umask(old)


def test_the_way_in_for_the_administrator_is_gone_after_a_stop(data: Path) -> None:
    with Serving(data) as broker:
        assert json.loads((data / "admin.json").read_text())["zmq"] == broker.zmq
        broker.stop()
    assert not (data / "admin.json").exists()


def test_a_stale_way_in_is_replaced(data: Path) -> None:
    with Serving(data) as broker:
        stale = (data / "admin.json").read_text()
        broker.signal(signal.SIGKILL)
        broker.end()
        assert (data / "admin.json").read_text() == stale
        with broker.again():
            fresh = (data / "admin.json").read_text()
            assert json.loads(fresh)["token"] != json.loads(stale)["token"]
            assert stat.S_IMODE((data / "admin.json").stat().st_mode) == 0o600
            assert run("user", "list", "--data", str(data)).code == 0


# --- settings ------------------------------------------------------------------------------------


def test_strangers_register_only_where_they_may(data: Path) -> None:
    with Serving(data) as broker, Client(broker.zmq) as client:
        assert refused(lambda: client.register("ana", "long enough")) == Code.FORBIDDEN
        assert broker.stop().code == 0
        with broker.again("--register"):
            assert client.register("ana", "long enough", name="Ana").name == "Ana"
            assert refused(lambda: client.register("ana", "long enough")) == Code.USER_EXISTS
            assert refused(lambda: client.register("budi", "short")) == Code.BAD_REQUEST
            assert client.login("ana", "long enough").name == "Ana"


def test_the_pages_for_the_operator_show_what_happened(data: Path) -> None:
    with Serving(data, "--demo") as broker, TextConnection(*broker.text_address) as text:
        with connect(broker) as client:
            client.send("fadly", "one")
            client.send("fadly", "two")
            refused(lambda: client.send("nobody", "x"))
        token = text.login("fadly", "prp")["tokenid"]
        assert broker.metric("kotak_waiting_messages") == 2
        text.kotakmasuk(token)
        assert broker.page("/healthz") == (200, "alive\n")
        assert broker.page("/readyz") == (200, "ready\n")
        assert broker.metric('kotak_requests_total{command="chat"}') == 3
        assert broker.metric('kotak_requests_total{command="login"}') == 2
        assert broker.metric('kotak_refusals_total{code="no_such_user"}') == 1
        eventually(lambda: broker.metric("kotak_waiting_messages") == 0)
        assert broker.metric("kotak_mailboxes") == 4
        assert broker.metric("kotak_subscriptions") == 0
        assert broker.metric("kotak_text_connections") == 1
        assert broker.metric("kotak_text_lines_total") == 2
        for quiet in ("refused", "unread", "untaken", "faults"):
            assert broker.metric(f"kotak_text_{quiet}_total") == 0
        assert broker.metric("kotak_log_lines_dropped_total") == 0
        assert broker.metric("kotak_metrics_failed_reads_total") == 0
        assert 0 < broker.metric("kotak_turns_total") < 100


# --- the gateway alone ---------------------------------------------------------------------------


def test_a_gateway_alone_serves_the_text_door_of_another_broker(data: Path) -> None:
    with (
        Serving(data, "--demo", text="off") as broker,
        Program("gateway", "text", "--broker", broker.zmq, "--text", "127.0.0.1:0") as gateway,
    ):
        found = gateway.wait_for(GATEWAY_READY)
        with TextConnection(found[1], int(found[2])) as text, connect(broker) as client:
            client.send("fadly", "through two processes")
            token = text.login("fadly", "prp")["tokenid"]
            assert text.kotakmasuk(token)["messages"][0]["msg"] == "through two processes"
            began = time.monotonic()
            gateway.signal(signal.SIGTERM)
            assert gateway.end().code == 0
            assert time.monotonic() - began < 5
        again = ("gateway", "text", "--broker", broker.zmq)
        with socket.create_server(("127.0.0.1", 0)) as other:
            taken = f"127.0.0.1:{other.getsockname()[1]}"
            ended = run(*again, "--text", taken)
        assert ended.code == 4
        assert f"the text door cannot open at {taken}: Address already in use" in complaint(ended)
