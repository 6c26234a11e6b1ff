"""The text of CURVE keys: what is written is read again, by others too, and rubbish is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import zmq
import zmq.auth
from hypothesis import given
from hypothesis import strategies as st
from zmq.utils import z85

from broker.wire.keyfile import (
    KEY_CHARS,
    KeyFile,
    format_keys,
    is_key,
    parse_keys,
    parse_public_keys,
)

PUBLIC, SECRET = (key.decode() for key in zmq.curve_keypair())
OTHER = zmq.curve_keypair()[0].decode()


def test_what_is_written_is_read_again() -> None:
    for keys in (
        KeyFile(public=PUBLIC, secret=SECRET),
        KeyFile(public=PUBLIC),
        KeyFile(public=PUBLIC, secret=SECRET, server=OTHER),
    ):
        assert parse_keys(format_keys(keys, comment="a note")) == keys


def test_pyzmq_reads_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(format_keys(KeyFile(public=PUBLIC, secret=SECRET), comment="a note"))
    assert zmq.auth.load_certificate(path) == (PUBLIC.encode(), SECRET.encode())


def test_what_pyzmq_writes_is_read(tmp_path: Path) -> None:
    public_path, secret_path = zmq.auth.create_certificates(tmp_path, "key")
    keys = parse_keys(Path(secret_path).read_text())
    assert keys.secret
    assert parse_public_keys(Path(public_path).read_text()) == [keys.public]


def test_a_secret_is_not_shown() -> None:
    assert SECRET not in repr(KeyFile(public=PUBLIC, secret=SECRET))


# Names of their own: the keys are new ones in each process of a run.
@pytest.mark.parametrize(
    "text",
    ["", PUBLIC[:-1], PUBLIC + "0", PUBLIC[:-1] + " ", PUBLIC[:-1] + "~", "#" * KEY_CHARS],
    ids=["nothing", "short", "long", "blank", "no digit", "large"],
)
def test_what_is_no_key_is_told_from_one(text: str) -> None:
    """The last of these has 40 digits of Z85, which stand for more than 32 bytes."""
    assert not is_key(text)


@given(st.binary(min_size=32, max_size=32))
def test_all_32_bytes_are_a_key(key: bytes) -> None:
    assert is_key(z85.encode(key).decode())


def test_no_key_begins_as_a_comment_does() -> None:
    """Where the first digit is '#', five of them are more than four bytes hold."""
    assert not is_key("#" + "0" * 39)


def test_a_list_has_a_key_a_line_with_a_note_behind_it() -> None:
    text = f"# who may come in\n\n{PUBLIC}  shafwa's laptop\n  {OTHER} \n"
    assert parse_public_keys(text) == [PUBLIC, OTHER]


@pytest.mark.parametrize(
    "text",
    ["shafwa's laptop", f"key {PUBLIC}", PUBLIC[:-1], f'public-key = "{PUBLIC}0"'],
    ids=["words", "word before", "short", "long"],
)
def test_a_list_with_a_line_that_is_no_key_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(ValueError, match="line 1: a key has 40 characters") as caught:
        parse_public_keys(text)
    assert PUBLIC[:-1] not in str(caught.value)


def test_a_file_without_keys_is_refused() -> None:
    with pytest.raises(ValueError, match="no key"):
        parse_keys("metadata\ncurve\n")


@given(st.text())
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    for parse in (parse_keys, parse_public_keys):
        try:
            parse(text)
        except ValueError:
            continue
