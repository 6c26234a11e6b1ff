"""``scripts/prove``: every part of the proof within a budget of minutes, and one table."""
