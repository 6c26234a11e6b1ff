"""``--curve``: the one option, and the variable, with which a command says how it encrypts."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Final

from clients.curve_keys import Curve, read_curve

VARIABLE: Final = "KOTAK_CURVE"


def add_curve_option(parser: argparse._ActionsContainer) -> None:
    """Add the option to a parser or a group; absent, it leaves no attribute behind."""
    parser.add_argument(
        "--curve",
        metavar="KEY|FILE",
        default=argparse.SUPPRESS,
        help="encrypt the connection: the broker's public key, the file it stands in, or your own "
        f"key file that names it (default: ${VARIABLE}, else not encrypted)",
    )


def chosen_curve(
    args: argparse.Namespace, environ: Mapping[str, str], *, saved: str | None = None
) -> Curve | None:
    """Return the keys that were asked for; None where none were.

    The option wins over the variable, and that over ``saved``, the `curve_value` that a session was
    begun with. Errors: `CurveKeyError`.
    """
    value = curve_value(args, environ) or saved
    return read_curve(value) if value else None


def curve_value(args: argparse.Namespace, environ: Mapping[str, str]) -> str | None:
    """Return what was given, as it was given: a key, or the path of a file. No secret."""
    value: str | None = getattr(args, "curve", None)
    return value or environ.get(VARIABLE) or None
