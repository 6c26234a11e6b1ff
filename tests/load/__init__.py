"""Load from real processes with the real clients, judged by `tests.proof.checker`."""
