"""Kotak: a durable mailbox broker over ZeroMQ."""
