"""broker.accounts_file: which lines make an account, and what is said of the others."""

from __future__ import annotations

import io

import pytest
from argon2 import PasswordHasher

from broker.accounts_file import FILE_BYTES_MAX, Parsed, parse

HASH = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("secret")


def read(text: str | bytes) -> Parsed:
    return parse(io.BytesIO(text.encode() if isinstance(text, str) else text))


def test_each_form_of_line_gives_the_arguments_of_user_add() -> None:
    parsed = read(f"ana:pw\nbudi:p w:Budi : Santoso\ncici:{HASH}:Cici\n")
    assert parsed.problems == []
    assert [(a.line, dict(a.args)) for a in parsed.accounts] == [
        (1, {"user": "ana", "password": "pw"}),
        (2, {"user": "budi", "password": "p w", "name": "Budi : Santoso"}),
        (3, {"user": "cici", "password_hash": HASH, "name": "Cici"}),
    ]


def test_comments_blank_lines_dos_line_ends_and_a_byte_order_mark_are_skipped() -> None:
    parsed = read(b"\xef\xbb\xbf# users\r\n\r\n  \r\n  # more\r\n ana : p#w \r\n")
    assert parsed.problems == []
    assert [(a.line, a.args) for a in parsed.accounts] == [
        (5, {"user": "ana", "password": " p#w "})
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ana", "no colon"),
        ("ana:", "'password' must not be empty"),
        (":pw", "'user' must not be empty"),
        ("Ana:pw", "small letters"),
        ("ana:$argon2id$v=19$broken", "argon2 hash is incomplete"),
        ("ana:" + "x" * 1_025, "1024 bytes"),
        ("ana:pw:" + "x" * 129, "128 bytes"),
    ],
)
def test_a_bad_line_is_named_by_its_number_and_reason(line: str, said: str) -> None:
    parsed = read(f"good:pw\n{line}\n")
    (problem,) = parsed.problems
    assert problem.startswith("line 2: ")
    assert said in problem


def test_all_problems_are_found_at_once_and_none_quotes_a_password() -> None:
    parsed = read(b"Ana:canary\nana:$argon2canary\n\xff:canary\nbudi:a\nbudi:canary\n")
    assert [p.split(":")[0] for p in parsed.problems] == ["line 1", "line 2", "line 3", "line 5"]
    assert "budi stands in line 4 already" in parsed.problems[-1]
    assert "canary" not in "".join(parsed.problems)


def test_a_file_without_end_is_refused() -> None:
    parsed = parse(io.BytesIO(b"#" * (FILE_BYTES_MAX + 1)))
    assert parsed.accounts == []
    assert "over 64 MiB" in parsed.problems[0]


def test_an_empty_file_is_no_mistake() -> None:
    assert read("") == Parsed([], [])
