"""The composition root: what a running broker is made of, in which order it starts and stops."""

from broker.server.access import OnlineAdmin, open_admin
from broker.server.broker import Doors, Server
from broker.server.restoring import restore
from broker.server.run import run, run_gateway

__all__ = ["Doors", "OnlineAdmin", "Server", "open_admin", "restore", "run", "run_gateway"]
