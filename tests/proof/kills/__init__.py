"""kill -9, at random times and at named points, of real processes; then what is left is judged.

    python -m tests.proof.kills [--cycles 300] [--brokers 40] [--stride 1] [--seed S] [--json]

A *cycle* is a life of a store in a process of its own that ends by SIGKILL, an integrity check,
and a verdict of the checker on all that was answered in this life and the ones before it. The
points are put into the process from outside (points.py): the broker's code knows nothing of them.
What SIGKILL cannot show is a missing sync: for that there is tests.proof.disk.
"""
