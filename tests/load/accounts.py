"""The accounts of a load: imported into its own broker, registered at somebody else's."""

from __future__ import annotations

import subprocess
import sys

from argon2 import PasswordHasher

from broker.wire.errors import Code
from clients.client import Client
from clients.errors import ConnectionFailed, RequestError, RequestTimeout
from tests.load.broker_process import BrokerError, BrokerProcess
from tests.load.doors import UnreachableError
from tests.load.plan import PASSWORD, Plan


def import_accounts(plan: Plan, broker: BrokerProcess) -> None:
    """Make all accounts with ``kotak user import``. Errors: `BrokerError`.

    The password is hashed once, and cheaply: a load measures messages, not logins.
    """
    password_hash = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    lines = "".join(f"{user}:{password_hash}:{user}\n" for user in plan.accounts())
    command = [sys.executable, "-m", "broker.cli", "user", "import", "-"]
    done = subprocess.run(
        [*command, "--data", str(broker.data)],
        input=lines, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise BrokerError(f"the accounts could not be made:\n{done.stderr.strip()}")


def register_accounts(plan: Plan, address: str) -> None:
    """Register all accounts that do not exist yet. Errors: `UnreachableError`."""
    with Client(address, timeout_ms=plan.timeout_ms) as client:
        for user in plan.accounts():
            try:
                client.register(user, PASSWORD)
            except RequestError as error:
                if error.code != Code.USER_EXISTS:
                    raise UnreachableError(_explain(address, error)) from None


def _explain(address: str, error: RequestError) -> str:
    if isinstance(error, RequestTimeout | ConnectionFailed):
        return f"no answer from {address}: {error.message}"
    if error.code == Code.FORBIDDEN:
        return f"{address} lets nobody register: start that broker with --register"
    return f"cannot register accounts at {address}: {error.message}"
