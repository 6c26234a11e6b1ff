"""Sockets, and nothing behind them: bytes to the service and back."""
