"""``python -m tests.proof.kills``: prove, and print one table."""

import sys

from tests.proof.kills.prove import KILLS
from tests.proof.part import main

sys.exit(main(KILLS))
