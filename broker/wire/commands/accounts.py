"""Accounts, their keys and roles: ``register``, ``passwd``, ``user_...``, ``key_...``.

Source: docs/PROTOCOL.md, "Commands".
"""

from __future__ import annotations

from typing import NamedTuple

from broker.wire.commands.fields import Fields, name_of, new_user, only, refuse, string
from broker.wire.keyfile import KEY_CHARS, is_key
from broker.wire.limits import (
    NAME_BYTES_MAX,
    PASSWORD_BYTES_MAX,
    PASSWORD_HASH_CHARS_MAX,
    USER_CHARS_MAX,
)
from broker.wire.roles import Role


class PageArgs(NamedTuple):
    """``user_list``, ``mailbox_list``: where the page begins (None: at the first)."""

    after: str | None

    @classmethod
    def parse(cls, fields: Fields) -> PageArgs:
        only(fields, "after")
        return cls(name_of(fields, "after", USER_CHARS_MAX, None))


class RegisterArgs(NamedTuple):
    """``register``: a new account, made by its owner."""

    user: str
    password: str
    name: str | None

    @classmethod
    def parse(cls, fields: Fields) -> RegisterArgs:
        only(fields, "user", "password", "name")
        return cls(
            new_user(fields),
            string(fields, "password", PASSWORD_BYTES_MAX),
            string(fields, "name", NAME_BYTES_MAX, None),
        )


class PasswdArgs(NamedTuple):
    """``passwd``: the old password and the new one."""

    password: str
    new_password: str

    @classmethod
    def parse(cls, fields: Fields) -> PasswdArgs:
        only(fields, "password", "new_password")
        return cls(
            string(fields, "password", PASSWORD_BYTES_MAX),
            string(fields, "new_password", PASSWORD_BYTES_MAX),
        )


class UserAddArgs(NamedTuple):
    """``user_add``: a new account, made by an administrator, from a password or from its hash."""

    user: str
    password: str | None
    password_hash: str | None
    name: str | None

    @classmethod
    def parse(cls, fields: Fields) -> UserAddArgs:
        only(fields, "user", "password", "password_hash", "name")
        args = cls(
            new_user(fields),
            string(fields, "password", PASSWORD_BYTES_MAX, None),
            name_of(fields, "password_hash", PASSWORD_HASH_CHARS_MAX, None),
            string(fields, "name", NAME_BYTES_MAX, None),
        )
        if (args.password is None) == (args.password_hash is None):
            raise refuse("give one of 'password' and 'password_hash'")
        return args


class UserPasswdArgs(NamedTuple):
    """``user_passwd``: a new password, set by an administrator."""

    user: str
    password: str

    @classmethod
    def parse(cls, fields: Fields) -> UserPasswdArgs:
        only(fields, "user", "password")
        return cls(
            name_of(fields, "user", USER_CHARS_MAX),
            string(fields, "password", PASSWORD_BYTES_MAX),
        )


class UserArgs(NamedTuple):
    """``user_remove``, ``block``, ``session_list`` and others: whom, or whose."""

    user: str

    @classmethod
    def parse(cls, fields: Fields) -> UserArgs:
        only(fields, "user")
        return cls(name_of(fields, "user", USER_CHARS_MAX))


class KeyArgs(NamedTuple):
    """``key_add``, ``key_remove``: whose, and which: a public CURVE key."""

    user: str
    key: str

    @classmethod
    def parse(cls, fields: Fields) -> KeyArgs:
        only(fields, "user", "key")
        args = cls(name_of(fields, "user", USER_CHARS_MAX), name_of(fields, "key", KEY_CHARS))
        if not is_key(args.key):
            raise refuse(f"'key' must be a public key: {KEY_CHARS} characters of Z85")
        return args


class UserRoleArgs(NamedTuple):
    """``user_role``: whom, and what it may do from now on."""

    user: str
    role: Role

    @classmethod
    def parse(cls, fields: Fields) -> UserRoleArgs:
        only(fields, "user", "role")
        user, role = name_of(fields, "user", USER_CHARS_MAX), string(fields, "role", NAME_BYTES_MAX)
        if role not in set(Role):
            raise refuse(f"'role' must be one of: {', '.join(Role)}")
        return cls(user, Role(role))
