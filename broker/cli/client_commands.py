"""The commands of the clients, which `clients.cli` and `clients.text_cli` carry out."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Sequence

from broker.cli.parsing import Parser, parse
from broker.exits import Exit, ExitError


def run_client(words: list[str], *, others: Sequence[str]) -> int:
    """Run a command of the clients, or the chat; ``others`` are the commands of the broker."""
    from clients import cli as client

    parser: argparse.ArgumentParser = Parser(prog="kotak", add_help=False)
    client.add_common_options(parser)
    parser.set_defaults(run=client.interactive)
    commands = parser.add_subparsers(dest="command")
    client.add_commands(commands)
    known = [*commands.choices, "text", *others]
    if words and not words[0].startswith("-") and words[0] not in known:
        close = difflib.get_close_matches(words[0], known, n=1)
        hint = f"did you mean {close[0]}?" if close else "kotak --help lists what there is"
        raise ExitError(Exit.USAGE, f"there is no command {words[0]!r}; {hint}")
    args = parse(parser, words)
    run: Callable[[argparse.Namespace], int] = args.run
    return run(args)


def run_text(words: list[str]) -> int:
    """Run ``kotak text``."""
    from clients import text_cli

    parser = Parser(prog="kotak text", description="Talk to a text door, as in 2020.")
    text_cli.add_arguments(parser)
    return text_cli.run(parser.parse_args(words))
