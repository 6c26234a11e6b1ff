"""Key files: what is made is private and read again, and what is not ours alone is refused."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import zmq

from broker.transports import curve
from broker.transports.curve import (
    Enrolment,
    Pair,
    raw,
    read_pair,
    read_public_keys,
    write_pair,
)
from broker.transports.private_file import SecretFileError, exposure
from broker.wire.keyfile import KeyFile, format_keys, parse_keys

PAIR, OTHER = Pair.make(), Pair.make()


def test_a_pair_that_is_written_is_private_and_read_again(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        public_path = write_pair(tmp_path / "broker.key", PAIR)
    finally:
        os.umask(old)
    assert (tmp_path / "broker.key").stat().st_mode & 0o777 == 0o600
    assert read_pair(tmp_path / "broker.key") == PAIR
    assert public_path.name == "broker.key.pub"
    assert read_public_keys(public_path) == {PAIR.public_bytes}
    assert PAIR.secret not in public_path.read_text()


def test_a_clients_pair_names_the_broker_it_is_for(tmp_path: Path) -> None:
    write_pair(tmp_path / "me.key", PAIR, server=OTHER.public)
    assert parse_keys((tmp_path / "me.key").read_text()).server == OTHER.public


@pytest.mark.parametrize("taken", ["broker.key", "broker.key.pub"])
def test_no_key_is_ever_overwritten(taken: str, tmp_path: Path) -> None:
    (tmp_path / taken).write_text("precious")
    with pytest.raises(SecretFileError, match="exists already"):
        write_pair(tmp_path / "broker.key", PAIR)
    assert (tmp_path / taken).read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("place", ["none/broker.key", "file/broker.key", "x" * 300])
def test_a_place_where_no_file_can_be_is_told_in_a_sentence(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(SecretFileError, match="cannot write"):
        write_pair(tmp_path / place, PAIR)


def test_a_disk_that_takes_half_of_a_key_is_left_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SecretFileError, match="No space left"):
        write_pair(tmp_path / "broker.key", PAIR)
    assert not list(tmp_path.iterdir())


def test_no_public_key_looks_like_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person gives it to a command: behind --curve, or after 'kotak user key add'."""
    pairs = [(b"-" + PAIR.public_bytes, b"x"), (PAIR.public.encode(), PAIR.secret.encode())]
    monkeypatch.setattr(zmq, "curve_keypair", lambda: pairs.pop(0))
    assert Pair.make() == PAIR


def test_a_folder_of_too_many_keys_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curve, "_FILES_MAX", 1)
    for name in ("ann", "ben"):
        assert read_public_keys(tmp_path) <= {PAIR.public_bytes}
        write_pair(tmp_path / name, PAIR)
    with pytest.raises(SecretFileError, match="more than 1 keys"):
        read_public_keys(tmp_path)


def test_a_folder_that_we_may_not_look_into_is_refused_and_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(_: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "iterdir", closed)  # a test that runs as root may look anywhere
    with pytest.raises(SecretFileError, match=r"cannot read .*: Permission denied"):
        read_public_keys(tmp_path)


def test_a_pair_is_not_shown() -> None:
    assert PAIR.secret not in repr(PAIR)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o602, 0o660])
def test_a_secret_that_others_may_touch_is_refused_with_the_cure(mode: int, tmp_path: Path) -> None:
    write_pair(tmp_path / "broker.key", PAIR)
    (tmp_path / "broker.key").chmod(mode)
    with pytest.raises(SecretFileError, match=f"mode {mode:04o}.: run 'chmod 600 {tmp_path}"):
        read_pair(tmp_path / "broker.key")


@pytest.mark.parametrize(
    ("uid", "mode", "said"),
    [(0, 0o640, ""), (0, 0o644, "is open"), (0, 0o660, "is open"), (4_321, 0o600, "belongs to")],
)
def test_root_may_keep_a_secret_for_our_group_and_nobody_else_may(
    uid: int, mode: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1_234)
    info = os.stat_result((0o100000 | mode, 0, 0, 1, uid, 0, 0, 0, 0, 0))
    fault = exposure(Path("key"), info) or ""
    assert fault.startswith(f"key {said}" if said else "")
    assert bool(fault) is bool(said)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (KeyFile(public=PAIR.public), "holds no secret key"),
        (KeyFile(public=OTHER.public, secret=PAIR.secret), "are not a pair"),
    ],
)
def test_a_file_that_is_no_pair_says_so_without_quoting_it(
    keys: KeyFile, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "broker.key"
    path.write_text(format_keys(keys, comment="test"))
    path.chmod(0o600)
    with pytest.raises(SecretFileError, match=said) as caught:
        read_pair(path)
    assert PAIR.secret not in str(caught.value)


def test_a_secret_alone_is_a_pair(tmp_path: Path) -> None:
    path = tmp_path / "broker.key"
    path.write_text(format_keys(KeyFile(secret=PAIR.secret), comment="test"))
    path.chmod(0o600)
    assert read_pair(path) == PAIR


@pytest.mark.parametrize("name", ["missing", "folder", "pipe", "empty", "binary", "text"])
def test_what_is_no_key_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir(0o700)
    os.mkfifo(tmp_path / "pipe", 0o600)
    for other, content in (("empty", b""), ("binary", b"\xff\xfe"), ("text", b"hello there")):
        (tmp_path / other).write_bytes(content)
        (tmp_path / other).chmod(0o600)
    with pytest.raises(SecretFileError, match=str(tmp_path / name)):
        read_pair(tmp_path / name)


# --- Enrolled keys -----------------------------------------------------------------------------


def test_a_folder_enrols_the_public_halves_in_it_and_nothing_else(tmp_path: Path) -> None:
    write_pair(tmp_path / "shafwa", PAIR)
    (tmp_path / "fadly.pub").write_text(f"{OTHER.public}  a laptop\n")
    (tmp_path / "README").write_text("hello")
    assert read_public_keys(tmp_path) == {PAIR.public_bytes, OTHER.public_bytes}


def test_an_empty_folder_enrols_nobody(tmp_path: Path) -> None:
    enrolment = Enrolment(tmp_path, own=OTHER.public_bytes)
    assert not enrolment.admits(PAIR.public_bytes)
    assert enrolment.admits(OTHER.public_bytes)
    assert (enrolment.count, enrolment.anybody) == (0, False)


def test_without_a_list_anybody_is_admitted() -> None:
    enrolment = Enrolment(None, own=OTHER.public_bytes)
    assert enrolment.admits(PAIR.public_bytes)
    assert enrolment.anybody


def test_a_reload_takes_keys_in_and_out(tmp_path: Path) -> None:
    enrolment = Enrolment(tmp_path, own=b"")
    public_path = write_pair(tmp_path / "me", PAIR)
    assert not enrolment.admits(PAIR.public_bytes)
    enrolment.reload()
    assert enrolment.admits(PAIR.public_bytes)
    public_path.unlink()
    enrolment.reload()
    assert not enrolment.admits(PAIR.public_bytes)


@pytest.mark.parametrize("content", ["rubbish", "", None])
def test_a_reload_that_fails_leaves_the_former_keys(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(PAIR.public)
    enrolment = Enrolment(path, own=b"")
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(SecretFileError, match=str(path)):
        enrolment.reload()
    assert enrolment.admits(PAIR.public_bytes)


def test_a_key_is_the_bytes_that_libzmq_knows() -> None:
    public, _ = zmq.curve_keypair()
    assert len(raw(public.decode())) == 32
