"""The composition root: what a running broker is made of, in which order it starts and stops."""

from broker.server.access import open_admin
from broker.server.broker import Doors, Server
from broker.server.run import run, run_gateway

__all__ = ["Doors", "Server", "open_admin", "run", "run_gateway"]
