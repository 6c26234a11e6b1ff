"""``--curve``: the one option, and the variable, with which a command says how it encrypts."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from broker.wire.keyfile import is_key
from clients.curve_keys import Curve, read_curve

VARIABLE: Final = "KOTAK_CURVE"
#: Says that nothing is to be encrypted, whatever the variable or the session would have it.
OFF: Final = "off"


def add_curve_option(parser: argparse._ActionsContainer) -> None:
    """Add the option to a parser or a group; absent, it leaves no attribute behind."""
    parser.add_argument(
        "--curve",
        metavar="KEY|FILE",
        default=argparse.SUPPRESS,
        help="encrypt the connection: the broker's public key, the file it stands in, or your own "
        f"key file that names it; off: do not (default: ${VARIABLE}, else as the session was "
        "begun, else not encrypted)",
    )


def chosen_curve(args: argparse.Namespace, environ: Mapping[str, str]) -> Curve | None:
    """Return the keys that were asked for; None where none were. Errors: `CurveKeyError`."""
    value = curve_value(args, environ)
    return read_curve(value) if value and value != OFF else None


def curve_value(args: argparse.Namespace, environ: Mapping[str, str]) -> str | None:
    """Return what was given, as it was given: a key, the path of a file, or `OFF`. No secret.

    The option wins over the variable.
    """
    value: str | None = getattr(args, "curve", None)
    return value or environ.get(VARIABLE) or None


def kept_value(value: str | None) -> str:
    """Return what `curve_value` told as it can be kept: good in any folder; empty for none."""
    if value is None or value == OFF:
        return ""
    return value if is_key(value) else str(Path(value).expanduser().absolute())
