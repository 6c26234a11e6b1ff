"""``python -m tests.hostile.fuzz``: as ``scripts/hostile fuzz``."""

import sys

from tests.hostile.fuzz import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
