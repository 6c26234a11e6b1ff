"""``kotak user key``: from the command line down to the store of a stopped broker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from broker import cli
from broker.exits import Exit
from broker.transports.curve import Pair, write_pair

Key = Callable[..., tuple[int, str, str]]


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Key:
    """Return what runs ``kotak user key WORDS`` where ann has an account; its code, out and err."""
    monkeypatch.setenv("KOTAK_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ANN", "password")
    assert cli.main(["user", "add", "ann", "--password-env", "ANN"]) == Exit.OK
    capsys.readouterr()

    def run(*words: str) -> tuple[int, str, str]:
        code = cli.main(["user", "key", *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_keys_are_added_listed_and_removed(key: Key) -> None:
    one, two = sorted(Pair.make().public for _ in range(2))
    assert key("list", "ann") == (Exit.OK, "", "")
    assert key("add", "ann", two) == (Exit.OK, f"{two} logs ann in\n", "")
    assert key("add", "ann", one)[0] == Exit.OK
    assert key("list", "ann")[1] == f"{one}\n{two}\n"
    assert "its sessions have ended" in key("remove", "ann", one)[1]
    assert key("list", "ann")[1] == f"{two}\n"


@pytest.mark.parametrize("suffix", ["", ".pub"])
def test_a_key_may_be_given_by_its_file_and_no_secret_is_shown(
    key: Key, tmp_path: Path, suffix: str
) -> None:
    pair = Pair.make()
    write_pair(tmp_path / "me.key", pair, server=Pair.make().public)
    code, out, _ = key("add", "ann", str(tmp_path / f"me.key{suffix}"))
    assert (code, pair.secret in out) == (Exit.OK, False)
    assert key("list", "ann")[1] == f"{pair.public}\n"


def test_what_is_neither_a_key_nor_a_file_of_one_is_a_wrong_usage(key: Key, tmp_path: Path) -> None:
    (tmp_path / "rubbish").write_bytes(b"\xff\xfe")
    code, out, err = key("add", "ann", str(tmp_path / "rubbish"))
    assert (code, out) == (Exit.USAGE, "")
    assert "holds no public key: 'kotak keygen'" in err
    code, _, err = key("add", "ann", "nothing")
    assert code == Exit.USAGE
    assert (
        err == "kotak: nothing is no key, nor a file that can be read: No such file or directory\n"
    )


def test_a_refusal_is_one_sentence(key: Key) -> None:
    code, out, err = key("add", "nobody", Pair.make().public)
    assert (code, out) == (Exit.REFUSED, "")
    assert err == "kotak: there is no user of that name: check the spelling\n"
    assert "no such key" in key("remove", "ann", Pair.make().public)[2]
