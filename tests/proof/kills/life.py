"""One life of a store that ends at a point: ``python -m tests.proof.kills.life POINT NUMBER ...``.

The rest of the words are those of tests.proof.disk.life: FOLDER COURSE.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.proof.disk import life
from tests.proof.disk.course import Course
from tests.proof.kills.points import Point, arm

if __name__ == "__main__":
    point, number, folder, course = sys.argv[1:]
    arm(Point(point), int(number), Path(folder))
    sys.exit(life.main(Path(folder), Course.parse(course)))
