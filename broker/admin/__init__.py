"""``kotak user`` and ``kotak admin``: an administrator's commands, and what they say.

Results go to stdout, everything else to stderr. No password is ever taken from the command line,
where every user of the machine could read it.
"""

from broker.admin.account_import import import_file
from broker.admin.accounts import add, passwd, remove, role, show
from broker.admin.administrator import Admin
from broker.admin.backups import backup, show_restored
from broker.admin.keys import key
from broker.admin.operation import depth, drain, reload, status
from broker.admin.user_sessions import revoke, sessions

__all__ = [
    "Admin",
    "add",
    "backup",
    "depth",
    "drain",
    "import_file",
    "key",
    "passwd",
    "reload",
    "remove",
    "revoke",
    "role",
    "sessions",
    "show",
    "show_restored",
    "status",
]
