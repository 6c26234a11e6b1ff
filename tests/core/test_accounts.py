"""Accounts: names in front of the store, and answers that tell a stranger nothing."""

from __future__ import annotations

import pytest

from broker.core import accounts as accounts_module
from broker.core.accounts import Accounts, check_new_password
from broker.core.model import Account
from broker.stores.memory import MemoryStore
from broker.wire.errors import Code, WireError
from tests.core.fakes import FakeHasher


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def accounts(store: MemoryStore) -> Accounts:
    return Accounts(store, FakeHasher())


def test_a_name_defaults_to_the_user_name(accounts: Accounts) -> None:
    assert accounts.create("ann", None, "h") == Account("ann", "ann", "h")
    assert accounts.create("bob", "Bob", "h").name == "Bob"
    assert (accounts.name("ann"), accounts.name("bob"), accounts.name("eve")) == (
        "ann",
        "Bob",
        "eve",
    )


def test_a_name_is_never_older_than_the_account(accounts: Accounts) -> None:
    assert accounts.name("ann") == "ann"
    accounts.create("ann", "Ann", "h")
    assert accounts.name("ann") == "Ann"
    accounts.remove("ann")
    assert accounts.name("ann") == "ann"


def test_the_names_held_are_bounded(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts_module, "CACHE_NAMES_MAX", 2)
    for number in range(9):
        accounts.name(str(number))
    assert len(accounts._names) <= 2


def test_an_unknown_user_costs_as_much_as_a_wrong_password(accounts: Accounts) -> None:
    accounts.create("ann", None, "v1:x")
    assert accounts.stored_hash("ann") == "v1:x"
    assert accounts.stored_hash("eve").startswith("v1:"), "something real to be hashed against"


@pytest.mark.parametrize(
    ("user", "verified", "against"),
    [("eve", True, "h"), ("ann", False, "h"), ("ann", True, "changed since")],
)
def test_only_the_account_that_was_verified_passes(
    accounts: Accounts, user: str, *, verified: bool, against: str
) -> None:
    account = accounts.create("ann", None, "h")
    assert accounts.check("ann", True, "h") == account
    with pytest.raises(WireError) as caught:
        accounts.check(user, verified, against)
    assert caught.value.code is Code.BAD_CREDENTIALS


def test_a_new_password_has_eight_characters_not_bytes() -> None:
    check_new_password("\u00e9" * 8)
    with pytest.raises(WireError, match="8 characters"):
        check_new_password("\u00e9" * 7)


def test_a_login_under_way_may_know_the_hash_that_another_one_renewed(accounts: Accounts) -> None:
    account = accounts.create("ann", None, "v1:password")
    accounts.renew_password_hash(account, "v2:password")
    assert accounts.check("ann", True, "v1:password").password_hash == "v2:password"
    accounts.set_password_hash(account, "v2:another")
    with pytest.raises(WireError) as caught:
        accounts.check("ann", True, "v1:password")
    assert caught.value.code is Code.BAD_CREDENTIALS


def test_no_more_renewed_hashes_are_remembered_than_logins_can_be_under_way(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every login for years would leave one behind."""
    monkeypatch.setattr(accounts_module, "RENEWED_MAX", 2)
    for number in range(5):
        account = accounts.create(f"user{number}", None, f"v1:{number}")
        accounts.renew_password_hash(account, f"v2:{number}")
        assert accounts.check(account.user, True, f"v1:{number}").password_hash == f"v2:{number}"
        assert len(accounts._renewed) <= 2
