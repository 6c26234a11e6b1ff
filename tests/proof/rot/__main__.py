"""``python -m tests.proof.rot``: prove, and print one table."""

import sys

from tests.proof.part import main
from tests.proof.rot.prove import ROT

sys.exit(main(ROT))
