"""``kotak keygen``: a key to encrypt with."""

# ruff: noqa: T201 - what a command prints is its result

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from broker.cli.parsing import Subparsers
from broker.exits import Exit, ExitError

_KEYGEN: Final = """\
Make a key to encrypt with (CURVE): FILE, secret and for your eyes only, and FILE.pub, its public
half, which is printed too. A file that exists is left alone.

For the broker:

  kotak keygen broker.key
  kotak serve --curve-key broker.key

For a client, where the broker admits enrolled keys only (curve_clients), with the broker's public
key beside it, so that FILE is all the client needs:

  kotak keygen me.key --broker KEY
  kotak --curve me.key ..."""


def add_keygen(commands: Subparsers) -> None:
    """Add ``kotak keygen``."""
    parser = commands.add_parser("keygen", description=_KEYGEN)
    parser.add_argument("file", metavar="FILE", help="the key file to make")
    parser.add_argument(
        "--broker", metavar="KEY|FILE", help="the public key of the broker that a client uses"
    )
    parser.set_defaults(run=_keygen)


def _keygen(args: argparse.Namespace) -> int:
    from broker.transports.curve import Pair, write_pair
    from broker.transports.private_file import SecretFileError
    from clients.curve_keys import CurveKeyError, read_curve

    path, pair = Path(args.file).expanduser(), Pair.make()
    try:
        server = read_curve(args.broker).server if args.broker else None
        public_path = write_pair(path, pair, server=server)
    except (CurveKeyError, SecretFileError) as error:
        raise ExitError(Exit.USAGE, str(error)) from None
    print(pair.public)
    print(f"kotak: the key is in {path}, its public half in {public_path}", file=sys.stderr)
    return Exit.OK
