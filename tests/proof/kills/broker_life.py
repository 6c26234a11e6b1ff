"""A whole broker that ends at a point: a stand-in for broker.cli.

In the environment ``KILL_POINT`` is a `Point`, ``KILL_NUMBER`` at which time of coming to it, and
``KILL_FOLDER`` the data.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from broker.cli import main
from tests.proof.kills.points import Point, arm

if __name__ == "__main__":
    arm(
        Point(os.environ["KILL_POINT"]),
        int(os.environ["KILL_NUMBER"]),
        Path(os.environ["KILL_FOLDER"]),
    )
    sys.exit(main())
