"""argparse as ``kotak`` wants it: errors of one line, and near misses named."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import Any, Final, NoReturn, TypeAlias

from broker.exits import Exit

#: What takes the commands of a parser.
Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - it has no public name
#: What argparse says where an unquoted #room was taken for a comment, with all that followed it.
_QUOTED: Final = re.compile(r"required: .*\b(?:TO|TEXT|ROOM)\b|--room: expected one argument")


class Parser(argparse.ArgumentParser):
    """argparse, with errors of one line that say where the help is, and near misses named."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        if _QUOTED.search(message):
            message += "; in a shell, what begins with # needs quotes: '#team'"
        self.exit(Exit.USAGE, f"kotak: {message}\ntry: {self.prog} --help\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Name the command that was meant, where argparse would list them all."""
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:  # noqa: SLF001 - it has no public name
            close = difflib.get_close_matches(value, action.choices, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it is {', '.join(action.choices)}"
            self.error(f"there is no command '{self.prog} {value}'; {hint}")
        super()._check_value(action, value)


def parse(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """Parse, and let the command that was meant speak of a word that it does not know."""
    args, unknown = parser.parse_known_args(words)
    if unknown:
        speaker = _speaker(parser, words)
        options = [name for action in speaker._actions for name in action.option_strings]  # noqa: SLF001 - argparse tells no other way
        close = difflib.get_close_matches(unknown[0].partition("=")[0], options, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        speaker.error(f"{speaker.prog} does not know {unknown[0]!r}{hint}")
    return args


def _speaker(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser of the innermost command that the words name."""
    for action in parser._actions:  # noqa: SLF001 - as above
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
            for number, word in enumerate(words):
                if word in action.choices:
                    return _speaker(action.choices[word], words[number + 1 :])
    return parser
