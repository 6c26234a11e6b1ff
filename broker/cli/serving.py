"""Commands that serve, or show how they would: serve, check-config, gateway."""

# ruff: noqa: T201 - what a command prints is its result

from __future__ import annotations

import argparse
import os
import sys
from typing import Final

from broker.cli.parsing import Subparsers
from broker.cli.settings import PRECEDENCE, add_settings, load_settings, start_logging
from broker.exits import Exit, ExitError

_SERVE: Final = """\
Run the broker until SIGTERM or Ctrl-C. Once it serves, it prints one line:

  ready zmq=tcp://HOST:PORT text=HOST:PORT http=HOST:PORT

Results go to stdout, the log to stderr. Times (MS) are in milliseconds; port 0 picks a free one."""
_GATEWAY_SETTINGS: Final = (
    "text", "text_connections_max", "text_line_ms", "tls_cert", "tls_key", "insecure_public",
    "drain_ms", "log_level", "log_json",
)  # fmt: skip


def add_serve(commands: Subparsers) -> None:
    """Add ``kotak serve``."""
    serve = commands.add_parser(
        "serve",
        usage="kotak serve [--config FILE] [--SETTING VALUE ...]",
        description=_SERVE,
        epilog=PRECEDENCE,
    )
    add_settings(serve)
    serve.set_defaults(run=_serve)


def add_check_config(commands: Subparsers) -> None:
    """Add ``kotak check-config``."""
    check = commands.add_parser(
        "check-config",
        usage="kotak check-config [--config FILE] [--SETTING VALUE ...]",
        description="Show the settings as serve would take them, or what is wrong.",
        epilog=PRECEDENCE,
    )
    add_settings(check)
    check.set_defaults(run=_check_config)


def _serve(args: argparse.Namespace) -> int:
    config = load_settings(args).config
    _check_store(config.store)
    from broker import server

    start_logging(config)
    return server.run(config)


def _check_store(url: str) -> None:
    """Errors: `ExitError`, where the store's URL is none, or its library is missing."""
    if not url.startswith("redis"):
        return  # nor are libraries loaded for it
    from broker.core.ports import StoreUnusableError
    from broker.stores import place_of

    try:
        place_of(url)
    except StoreUnusableError as error:
        raise ExitError(Exit.USAGE, str(error)) from error


def _check_config(args: argparse.Namespace) -> int:
    from broker.config import show

    config, sources = load_settings(args)
    _check_store(config.store)
    rows = [("setting", "value", "from")]
    rows += [(name, show(getattr(config, name)), source) for name, source in sources.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for name, value, source in rows:
        print(f"{name:{widths[0]}}  {value:{widths[1]}}  {source}")
    word = "warning" if config.insecure_public else "refused"
    exposures = config.exposures()
    for sentence in exposures:
        print(f"kotak: {word}: {sentence}", file=sys.stderr)
    return Exit.USAGE if exposures and not config.insecure_public else Exit.OK


def add_gateway(commands: Subparsers) -> None:
    """Add ``kotak gateway``."""
    parser = commands.add_parser("gateway", description="Run one door alone.")
    text = parser.add_subparsers(dest="door", metavar="text", required=True).add_parser(
        "text",
        help="the text door",
        description="Run the text door in front of another broker.",
        epilog=PRECEDENCE,
    )
    text.add_argument(
        "--broker",
        required=True,
        metavar="tcp://HOST:PORT",
        help="the ZeroMQ door of the broker behind it",
    )
    # Not that of `clients.curve_option`: the libraries behind it would be loaded for --help.
    text.add_argument(
        "--curve",
        metavar="KEY|FILE",
        default=argparse.SUPPRESS,
        help="encrypt the way to that broker: its public key, the file it stands in, or a key file "
        "that names it (default: $KOTAK_CURVE, else not encrypted)",
    )
    add_settings(text, _GATEWAY_SETTINGS)
    text.set_defaults(run=_gateway)


def _gateway(args: argparse.Namespace) -> int:
    from broker.config import ConfigError, read_endpoint

    config = load_settings(args).config
    if config.text is None:
        raise ExitError(Exit.USAGE, "text is off: a text gateway needs an address to listen on")
    try:
        address = read_endpoint(args.broker, source="--broker")
    except ConfigError as error:
        raise ExitError(Exit.USAGE, str(error)) from None
    from broker import server
    from clients.curve_keys import CurveKeyError
    from clients.curve_option import chosen_curve

    try:
        curve = chosen_curve(args, os.environ)
    except CurveKeyError as error:
        raise ExitError(Exit.USAGE, str(error)) from None
    start_logging(config)
    return server.run_gateway(config, address, curve=curve)
