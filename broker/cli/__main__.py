"""``python -m broker.cli`` is ``kotak``."""

import sys

from broker.cli.command_line import main

if __name__ == "__main__":
    sys.exit(main())
