"""Rot: bits that flip and files that are cut short while nobody runs, and what a start makes of it.

    python -m tests.proof.rot [--database 100] [--log 80] [--witness 20] [--seed S] [--json]

Each seed damages one file of a data folder whose content is known, in one way. Allowed are: exactly
what was there; a refusal to start, with one line that says what to do and exit code 5; a stop with
exit code 6 when the damaged place is read; a loss that is announced (a new epoch whose lost range
holds all that is gone). Never are: less than was there in silence, an empty start, a traceback.

What is counted and not called a breach: a log whose last commit cannot be read, or that is shorter
than it was, since a power cut leaves the same; and a value that changed within a row of the
database. SQLite keeps no checksums of its pages, so a flip in a text, a name, an id or a cursor is
a valid row with another content. The figures say how often.
"""
