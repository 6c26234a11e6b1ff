"""Faults of the network between clients and both doors, through a proxy of our own.

    python -m tests.proof.network [--rounds 1] [--fault-ms 700] [--seed S] [--json]

Each fault comes over clients that send, read and acknowledge, stays for a while and goes again.
Then every client must be served again within `BACK_S_MAX`, and what all of them saw is judged.
What the proxy cannot do is lose a packet: a hole keeps what is sent into it, as TCP does, and lets
it through when it closes.
"""
