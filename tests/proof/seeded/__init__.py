"""Faults planted in the broker and its client, each of which the tests of the laws must catch."""
