"""The two ways of an administrator to a broker: through its data folder, or over the network."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from broker.cli.settings import FOLDER_SETTINGS, add_settings, load_settings
from broker.exits import Exit, ExitError


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Add how the broker is reached: its folder, or the options of the clients' commands."""
    # Not those of `clients.cli`: the libraries behind it would be loaded for each --help.
    remote = parser.add_argument_group("over the network")
    for option, form, text in (
        ("--broker", "tcp://HOST:PORT", "the broker's ZeroMQ door; without it, its data folder"),
        ("--session", "FILE", "where the login is kept (default: as kotak login)"),
        ("--curve", "KEY|FILE", "encrypt the way there, as kotak login (default: as the session)"),
    ):
        remote.add_argument(option, metavar=form, default=argparse.SUPPRESS, help=text)
    add_settings(parser, FOLDER_SETTINGS)


@contextmanager
def opened(args: argparse.Namespace, *, create: bool, running: bool = False) -> Iterator[Any]:
    """Open the way to whoever carries out an administrator's commands, `broker.admin.Admin`.

    ``create``: make a folder where there is none; ``running``: a broker must run on it.
    Errors: `ExitError`, also for what is refused or not answered in the block.
    """
    from broker.wire.errors import WireError

    try:
        with _opened(args, create=create, running=running) as administrator:
            yield administrator
    except WireError as error:
        raise _ended(error) from None


@contextmanager
def _opened(args: argparse.Namespace, *, create: bool, running: bool) -> Iterator[Any]:
    if hasattr(args, "broker"):
        with _open_remote(args) as remote:
            yield remote
        return
    from broker import server

    config = load_settings(args).config
    with server.open_admin(config, create=create) as found:
        if running and not found.running:
            raise ExitError(
                Exit.UNREACHABLE,
                f"no broker runs on {config.data}: start it, or give its folder with --data",
            )
        yield found


@contextmanager
def _open_remote(args: argparse.Namespace) -> Iterator[Any]:
    if args.data is not None:
        raise ExitError(
            Exit.USAGE, "give one of --broker, for the network, and --data, for this machine"
        )
    if "," in args.broker:
        # Asked again elsewhere after a lost answer, a command such as drain would be done twice.
        raise ExitError(
            Exit.USAGE, "an administrator's command goes to one broker: give --broker one address"
        )
    from broker import server
    from clients import Client
    from clients.cli import explain
    from clients.curve_keys import CurveKeyError
    from clients.invocation import Invocation, UsageError, broker_address

    try:
        broker_address(args.broker, "--broker")
        call = Invocation(args, Client)
    except (UsageError, CurveKeyError) as error:
        raise ExitError(Exit.USAGE, str(error)) from None
    try:
        client: Any
        with call.open(call.session().token) as client:
            yield server.OnlineAdmin(client)
    except Exception as error:
        # A reader of the output who has gone is no business of the broker's.
        ours = isinstance(error, ExitError | OSError)
        outcome = None if ours else explain(error, call)
        if outcome is None:
            raise
        code, sentence = outcome
        raise ExitError(next(each for each in Exit if each == code), sentence) from None


def _ended(error: Any) -> ExitError:
    """Return the end of a command that the broker refused, or did not answer."""
    from clients.errors import ConnectionFailed, RequestTimeout

    if isinstance(error, ConnectionFailed | RequestTimeout):
        return ExitError(Exit.UNREACHABLE, error.message)
    return ExitError(Exit.REFUSED, error.message)
