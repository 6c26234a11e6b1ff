"""The whole core with many clients in one thread, on a clock of its own: a seed replays exactly."""
