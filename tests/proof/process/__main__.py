"""``python -m tests.proof.process``: prove, and print one table."""

import sys

from tests.proof.part import main
from tests.proof.process.prove import PROCESS

sys.exit(main(PROCESS))
