"""The ``kotak`` command: reads the command line and hands over. Nothing is decided here.

Each command imports what it needs when it runs, so that ``kotak --help`` and ``kotak send`` do not
wait for a broker's libraries.
"""

from broker.cli.command_line import main

__all__ = ["main"]
