"""The commands: what each does, and the table that carries the checks as data."""

from broker.core.handlers.context import Context, Deferred, Inbox, Policy, Result
from broker.core.handlers.mail import handle_chats
from broker.core.handlers.table import COMMANDS, CommandSpec, Needs

__all__ = [
    "COMMANDS",
    "CommandSpec",
    "Context",
    "Deferred",
    "Inbox",
    "Needs",
    "Policy",
    "Result",
    "handle_chats",
]
