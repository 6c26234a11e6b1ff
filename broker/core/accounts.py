"""Accounts: names, display names, passwords. Hashing is handed out as slow work.

Source: docs/PROTOCOL.md, "login", "register", "passwd".
"""

from __future__ import annotations

from dataclasses import replace

from broker.core.model import Account, LoginKey
from broker.core.ports import Hasher, Store
from broker.core.refusals import being_made
from broker.wire.errors import Code, WireError
from broker.wire.limits import NOTICE_SENDER, PASSWORD_CHARS_MIN

#: Display names kept in front of the store; above it the cache starts anew.
CACHE_NAMES_MAX = 100_000

#: Renewed hashes that are remembered: more logins than can be under way.
RENEWED_MAX = 1_000
#: Names of those who can have no account.
_NOT_USERS = {NOTICE_SENDER: "Kotak"}
#: Unknown user and wrong password are one answer.
_BAD_CREDENTIALS = "the user name or the password is wrong"


class Accounts:
    """Look up and change accounts; what is slow is left to the caller to run elsewhere."""

    def __init__(self, store: Store, hasher: Hasher) -> None:
        self._store = store
        self._hasher = hasher
        # Hashes replaced by ones with today's parameters: a login under way may know the old one.
        self._renewed: dict[str, str] = {}
        self._names = dict(_NOT_USERS)
        # A login of an unknown user takes as long as one with a wrong password.
        self._nobodys_hash = hasher.hash("nobody has this password")

    def find(self, user: str) -> Account:
        """Return an account. Errors: ``no_such_user``."""
        account = self._store.find(Account, user)
        if account is None:
            raise WireError(Code.NO_SUCH_USER, "there is no user of that name: check the spelling")
        return account

    def name(self, user: str) -> str:
        """Return the display name of a user, or the user name where the account is gone."""
        name = self._names.get(user)
        if name is None:
            account = self._store.find(Account, user)
            if len(self._names) >= CACHE_NAMES_MAX:
                self._names = dict(_NOT_USERS)
            name = self._names[user] = account.name if account is not None else user
        return name

    def create(self, user: str, name: str | None, password_hash: str) -> Account:
        """Make an account with its empty mailbox. Errors: ``user_exists``, ``busy``."""
        if not self._store.claim(user):
            raise being_made()
        if self._store.find(Account, user) is not None:
            raise WireError(Code.USER_EXISTS, "that user name is taken: choose another")
        account = Account(user, name or user, password_hash)
        self._put(account)
        return account

    def renew_password_hash(self, account: Account, password_hash: str) -> None:
        """Replace the hash of an account by one of the same password."""
        if len(self._renewed) >= RENEWED_MAX:
            self._renewed.clear()
        self._renewed[account.password_hash] = password_hash
        self.set_password_hash(account, password_hash)

    def set_password_hash(self, account: Account, password_hash: str) -> None:
        """Replace the password hash of an account."""
        self._put(replace(account, password_hash=password_hash))

    def set_role(self, user: str, role: str) -> None:
        """Give an account another role. Errors: ``no_such_user``."""
        self._put(replace(self.find(user), role=role))

    def remove(self, user: str) -> None:
        """Remove an account and its mailbox. Errors: ``no_such_user``."""
        self.find(user)
        self._store.remove(Account, user)
        self._names.pop(user, None)

    def forget(self) -> None:
        """Empty the cache: the store changed behind it, or a batch was rolled back."""
        self._names = dict(_NOT_USERS)

    def forget_user(self, user: str) -> None:
        """Look a user's name up again: another broker changed the account."""
        if user not in _NOT_USERS:
            self._names.pop(user, None)

    def stored_hash(self, user: str) -> str:
        """Return the hash to check a login against, a dummy one for an unknown user."""
        account = self._store.find(Account, user)
        return account.password_hash if account is not None else self._nobodys_hash

    def check(self, user: str, verified: bool, against: str) -> Account:  # noqa: FBT001 - an answer
        """Return the account that a password was verified for, if it is still the same.

        Errors: ``bad_credentials``; also where the password was changed while it was being checked.
        """
        account = self._store.find(Account, user)
        if (
            not verified
            or account is None
            or account.password_hash not in (against, self._renewed.get(against))
        ):
            raise WireError(Code.BAD_CREDENTIALS, _BAD_CREDENTIALS)
        return account

    def of_key(self, user: str, key: str) -> Account:
        """Return the account of a user that this key logs in. Errors: ``bad_credentials``."""
        found = self._store.find(LoginKey, key)
        if found is None or found.user != user:
            raise WireError(Code.BAD_CREDENTIALS, "this connection's key does not log that user in")
        return self.find(user)

    def checked_hash(self, text: str) -> str:
        """Return a ready-made password hash. Errors: ``bad_request``."""
        if not self._hasher.is_hash(text):
            raise WireError(Code.BAD_REQUEST, "'password_hash' must be an encoded argon2 hash")
        return text

    def _put(self, account: Account) -> None:
        self._store.put(account)
        self._names.pop(account.user, None)


def check_new_password(password: str) -> None:
    """Refuse a password that is too short. Errors: ``bad_request``."""
    if len(password) < PASSWORD_CHARS_MIN:
        raise WireError(
            Code.BAD_REQUEST, f"a new password must have {PASSWORD_CHARS_MIN} characters or more"
        )
