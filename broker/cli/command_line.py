"""One command line: which command it is, what the help says, and how the process ends."""

# ruff: noqa: T201 - what a command prints is its result

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final

from broker.cli import administration, client_commands, keygen, migrating, serving, users
from broker.cli.parsing import Parser, parse
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
  block USER                take no messages from USER; those that wait stay
  unblock USER              take messages from USER again
  blocks                    list the users from whom you take no messages
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
  migrate SOURCE TARGET     move everything from a data folder to Redis (broker stopped)

accounts (on the broker's machine, or as an administrator with --broker):
  user add NAME             add a user
  user list                 list the users
  user passwd NAME          set a password
  user remove NAME          remove a user and its mailbox
  user import FILE          add many users from a file
  user role NAME ROLE       let a user administer (admin), watch (observer), or neither (user)
  user key COMMAND          keys that log a user in: add, list, remove

administration (likewise):
  admin status              say how the broker stands
  admin sessions USER       list who is logged in as USER
  admin revoke USER         end a session, or all of them
  admin depth [USER]        list what waits to be read
  admin drain               take nothing new, for maintenance
  admin reload              read certificate and enrolled keys anew
  admin backup [NAME]       copy everything, while the broker goes on
  admin restore FILE        put a backup back

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
_OURS: Final = ("serve", "check-config", "user", "admin", "gateway", "keygen", "migrate")
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
        return client_commands.run_text(words[1:])
    if not words or words[0] not in _OURS:
        return client_commands.run_client(words, others=_OURS)
    args = parse(_parser(), words)
    run: Callable[[argparse.Namespace], int] = args.run
    return run(args)


def _help() -> str:
    return _HELP.format(exits="\n".join(f"  {e.value:<3} {e.sentence}" for e in Exit))


def _fail(code: int, sentence: str) -> int:
    from broker import logs

    logs.flush()  # or its last line may land inside of ours
    sys.stderr.write(f"kotak: {sentence}\n")
    return code


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = Parser(prog="kotak", add_help=False)
    commands = parser.add_subparsers(dest="command", required=True)
    serving.add_serve(commands)
    serving.add_check_config(commands)
    serving.add_gateway(commands)
    users.add_user(commands)
    administration.add_admin(commands)
    keygen.add_keygen(commands)
    migrating.add_migrate(commands)
    return parser
