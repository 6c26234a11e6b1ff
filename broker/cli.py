"""The ``kotak`` command: reads the command line and hands over. Nothing is decided here.

Each command imports what it needs when it runs, so that ``kotak --help`` and ``kotak send`` do not
wait for a broker's libraries.
"""

# ruff: noqa: T201 - what a command prints is its result

from __future__ import annotations

import argparse
import difflib
import importlib.metadata
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from broker.exits import Exit, ExitError

_HELP: Final = """\
Kotak: messages wait in a mailbox until their reader has acknowledged them.

usage: kotak COMMAND [OPTIONS]
       kotak [--broker tcp://HOST:PORT]     talk to the broker interactively

messages:
  login USER                log in; the next commands act as USER, until logout
  send TO TEXT              put a message into a mailbox, or into a room: '#room' (also: chat)
  inbox                     show what waits for you, and take it (also: kotakmasuk)
  watch                     show messages as they arrive, and take them, until Ctrl-C
  history                   show what was said, read or unread: to you, by you, in a room
  status TO SEQ             say where a message stands that you have sent
  room COMMAND              rooms: list, create, invite, join, leave, members
  who                       list the users who are logged in (also: user_on)
  logout                    end the session
  whoami                    say who is logged in here
  register USER             make an account, where the broker allows it
  passwd                    change your password
  text                      talk to the text door, as the client of 2020 did

broker:
  serve                     run the broker
  check-config              show the settings, and where each comes from
  gateway text              run the text door alone, in front of another broker
  keygen FILE               make a key, for the broker or a client, to encrypt with

accounts (on the broker's machine, whether it runs or not):
  user add NAME             add a user
  user list                 list the users
  user passwd NAME          set a password
  user remove NAME          remove a user and its mailbox
  user import FILE          add many users from a file
  user key COMMAND          keys that log a user in: add, list, remove

options:
  -h, --help                this page; kotak help COMMAND, or kotak COMMAND --help, for one
  --version                 the version

to try it, with one terminal for the broker and one for the rest:
  kotak serve --demo --store memory:
  kotak login shafwa            (the password is mks)
  kotak send fadly "hai dudee"
  kotak login fadly             (the password is prp)
  kotak inbox

exit codes:
{exits}
  130 interrupted (Ctrl-C)
"""

#: The commands that are parsed here; every other word is the clients' business.
_OURS: Final = ("serve", "check-config", "user", "gateway", "keygen")
#: What argparse says where an unquoted #room was taken for a comment, with all that followed it.
_QUOTED: Final = re.compile(r"required: .*\b(?:TO|TEXT|ROOM)\b|--room: expected one argument")
#: As shells have it: 128 and the number of SIGINT, of SIGPIPE.
_INTERRUPTED: Final = 130
_BROKEN_PIPE: Final = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code (`Exit`)."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(words)
        sys.stdout.flush()
    except ExitError as error:
        return _fail(error.code, error.sentence)
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            print(file=sys.stderr)  # the shell's prompt on a line of its own, behind "^C"
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has left. Python would complain once more as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    return code


def _run(words: list[str]) -> int:
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    if words[:1] in (["-h"], ["--help"]):
        print(_help(), end="")
        return Exit.OK
    if words[:1] == ["--version"]:
        print(f"kotak {importlib.metadata.version('kotak')}")
        return Exit.OK
    if words[:1] == ["text"]:
        return _run_text(words[1:])
    if not words or words[0] not in _OURS:
        return _run_client(words)
    args = _parse(_parser(), words)
    run: Callable[[argparse.Namespace], int] = args.run
    return run(args)


def _help() -> str:
    return _HELP.format(exits="\n".join(f"  {e.value:<3} {e.sentence}" for e in Exit))


def _fail(code: int, sentence: str) -> int:
    from broker import logs

    logs.flush()  # or its last line may land inside of ours
    sys.stderr.write(f"kotak: {sentence}\n")
    return code


class _Parser(argparse.ArgumentParser):
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


def _parse(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
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


# --- The client's commands -------------------------------------------------------------------


def _run_client(words: list[str]) -> int:
    from clients import cli as client

    parser: argparse.ArgumentParser = _Parser(prog="kotak", add_help=False)
    client.add_common_options(parser)
    parser.set_defaults(run=client.interactive)
    commands = parser.add_subparsers(dest="command")
    client.add_commands(commands)
    known = [*commands.choices, "text", *_OURS]
    if words and not words[0].startswith("-") and words[0] not in known:
        close = difflib.get_close_matches(words[0], known, n=1)
        hint = f"did you mean {close[0]}?" if close else "kotak --help lists what there is"
        return _fail(Exit.USAGE, f"there is no command {words[0]!r}; {hint}")
    args = _parse(parser, words)
    run: Callable[[argparse.Namespace], int] = args.run
    return run(args)


def _run_text(words: list[str]) -> int:
    from clients import text_cli

    parser = _Parser(prog="kotak text", description="Talk to a text door, as in 2020.")
    text_cli.add_arguments(parser)
    return text_cli.run(parser.parse_args(words))


# --- The broker's commands -------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _Parser(prog="kotak", add_help=False)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser(
        "serve",
        usage="kotak serve [--config FILE] [--SETTING VALUE ...]",
        description=_SERVE,
        epilog=_PRECEDENCE,
    )
    _add_settings(serve)
    serve.set_defaults(run=_serve)
    check = commands.add_parser(
        "check-config",
        usage="kotak check-config [--config FILE] [--SETTING VALUE ...]",
        description="Show the settings as serve would take them, or what is wrong.",
        epilog=_PRECEDENCE,
    )
    _add_settings(check)
    check.set_defaults(run=_check_config)
    _add_user_commands(commands.add_parser("user", description="Add, list and remove users."))
    _add_gateway(commands.add_parser("gateway", description="Run one door alone."))
    _add_keygen(commands.add_parser("keygen", description=_KEYGEN))
    return parser


_SERVE: Final = """\
Run the broker until SIGTERM or Ctrl-C. Once it serves, it prints one line:

  ready zmq=tcp://HOST:PORT text=HOST:PORT http=HOST:PORT

Results go to stdout, the log to stderr. Times (MS) are in milliseconds; port 0 picks a free one."""

_PRECEDENCE: Final = """\
A setting NAME may also stand in the file (NAME = value, TOML) or in the environment (KOTAK_NAME).
The flag wins over the environment, the environment over the file. KOTAK_CONFIG names the file."""

_GATEWAY_SETTINGS: Final = (
    "text", "text_connections_max", "text_line_ms", "tls_cert", "tls_key", "insecure_public",
    "drain_ms", "log_level", "log_json",
)  # fmt: skip
_USER_SETTINGS: Final = ("data",)


def _add_settings(parser: argparse.ArgumentParser, names: Sequence[str] | None = None) -> None:
    """Add ``--config`` and the flags of the settings, grouped, their defaults in the help."""
    from broker.config import SETTINGS, show

    parser.add_argument("--config", metavar="FILE", help="the settings, as TOML")
    groups: dict[str, Any] = {}
    for setting in SETTINGS.values():
        if names is not None and setting.name not in names:
            continue
        if setting.group not in groups:
            groups[setting.group] = parser.add_argument_group(setting.group)
        default = "~/.local/share/kotak" if setting.name == "data" else show(setting.default)
        options: dict[str, Any] = {"dest": setting.name, "default": None}
        if default in ("true", "false"):
            default = "yes" if default == "true" else "no"  # a switch takes no value
        options["help"] = f"{setting.help} (default: {default})".replace("%", "%%")
        if setting.form:
            options["metavar"] = setting.form
        else:
            options["action"] = argparse.BooleanOptionalAction
        groups[setting.group].add_argument(setting.flag, **options)


def _load(args: argparse.Namespace) -> Any:
    """Return `broker.config.Loaded`. Errors: `ExitError` with the configuration's sentence."""
    from broker.config import SETTINGS, ConfigError, load

    given = vars(args)
    flags = {name: given[name] for name in SETTINGS if name in given}
    try:
        return load(flags=flags, environ=os.environ, file=args.config)
    except ConfigError as error:
        raise ExitError(Exit.USAGE, str(error)) from None


def _start_logging(config: Any) -> None:
    from broker import logs

    logs.configure(config.log_level, config.log_json)


def _serve(args: argparse.Namespace) -> int:
    config = _load(args).config
    from broker import server

    _start_logging(config)
    return server.run(config)


def _check_config(args: argparse.Namespace) -> int:
    from broker.config import show

    config, sources = _load(args)
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


def _add_gateway(parser: argparse.ArgumentParser) -> None:
    text = parser.add_subparsers(dest="door", metavar="text", required=True).add_parser(
        "text",
        help="the text door",
        description="Run the text door in front of another broker.",
        epilog=_PRECEDENCE,
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
    _add_settings(text, _GATEWAY_SETTINGS)
    text.set_defaults(run=_gateway)


def _gateway(args: argparse.Namespace) -> int:
    from broker.config import ConfigError, read_endpoint

    config = _load(args).config
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
    _start_logging(config)
    return server.run_gateway(config, address, curve=curve)


# --- Keys ------------------------------------------------------------------------------------


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


def _add_keygen(parser: argparse.ArgumentParser) -> None:
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


# --- Accounts --------------------------------------------------------------------------------


def _add_user_commands(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(
        dest="user_command", metavar="add|list|passwd|remove|import|key", required=True
    )

    def command(word: str, text: str, *, user: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(word, help=text.partition(".")[0].rstrip(":"), description=text)
        if user:
            sub.add_argument("user", metavar="NAME", help="the user's name")
        _add_settings(sub, _USER_SETTINGS)
        sub.set_defaults(run=_user)
        return sub

    add = command("add", "Add a user. Asks for the password.")
    add.add_argument("--name", metavar="TEXT", help="the display name (default: NAME)")
    _add_password_options(add)
    _add_password_options(command("passwd", "Set a user's password; its sessions end."))
    remove = command("remove", "Remove a user and every message in its mailbox.")
    remove.add_argument("--yes", action="store_true", help="do not ask")
    show = command("list", "List all users.", user=False)
    show.add_argument("--json", action="store_true", help="one JSON array")
    file = command("import", _IMPORT, user=False)
    file.add_argument("file", metavar="FILE", help="the file; - reads it from stdin")
    key_text = "Keys that log a user in, without a password."
    _add_key_commands(commands.add_parser("key", help=key_text[:-1], description=key_text))


def _add_key_commands(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="key_command", metavar="add|list|remove", required=True)
    for word, text in (
        ("add", "Let a key log the user in."),
        ("list", "List the keys that log the user in."),
        ("remove", "Let a key log the user in no more; its sessions end."),
    ):
        sub = commands.add_parser(word, help=text.partition(".")[0], description=text)
        sub.add_argument("user", metavar="NAME", help="the user's name")
        if word != "list":
            sub.add_argument(
                "key", metavar="KEY|FILE", help="the public key, or its file (of kotak keygen)"
            )
        _add_settings(sub, _USER_SETTINGS)
        sub.set_defaults(run=_user)


_IMPORT: Final = """\
Add the users of a file.

One user a line:

  user:password
  user:password:display name
  user:$argon2id$...:display name

The first two colons part the fields: a password has none, a display name may. Blank lines and lines
that begin with # are skipped. The whole file is checked first: where a line is wrong, no user is
added. Users that exist are reported and left as they are."""


def _add_password_options(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--password-stdin", action="store_true", help="read the password from stdin, one line"
    )
    source.add_argument(
        "--password-env", metavar="NAME", help="read it from an environment variable"
    )


def _user(args: argparse.Namespace) -> int:
    from broker import admin, server
    from broker.wire.errors import WireError

    run: Callable[[Any, argparse.Namespace], int] = {
        "add": admin.add,
        "list": admin.show,
        "passwd": admin.passwd,
        "remove": admin.remove,
        "import": admin.import_file,
        "key": admin.key,
    }[args.user_command]
    try:
        create = args.user_command in ("add", "import")
        with server.open_admin(_load(args).config, create=create) as opened:
            return run(opened, args)
    except WireError as error:
        raise ExitError(Exit.REFUSED, error.message) from None


if __name__ == "__main__":
    sys.exit(main())
