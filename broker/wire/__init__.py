"""Bytes to values and back: the protocol without a socket. Imports msgpack and nothing of ours."""
