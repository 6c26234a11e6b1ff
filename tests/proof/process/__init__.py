"""The broker as a process: its threads, its end, its start, and a long life.

    python -m tests.proof.process [--switching 10] [--spoiled 3] [--stops 20] [--waiting 1000000]
                                  [--soak 1000000] [--seed S] [--json]

Faults are put into a process of our own (program.py), which then runs the broker as it is.
"""
