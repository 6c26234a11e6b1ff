"""Many brokers on one Redis: real processes, load on them, faults, and what it all costs."""
