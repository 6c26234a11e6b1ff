"""``python -m tests.proof.network``: prove, and print one table."""

import sys

from tests.proof.network.prove import NETWORK
from tests.proof.part import main

sys.exit(main(NETWORK))
