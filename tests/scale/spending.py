"""What a server has spent so far, as it tells itself."""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.scale.node import Node


class Spent(NamedTuple):
    """What a server says that it has spent so far."""

    cpu_us: float
    commands: float
    network_bytes: float
    memory_bytes: float
    log_bytes: float


def spent(node: Node) -> Spent:
    """Return what a server has spent so far."""
    told: dict[str, Any] = node.ask("INFO", "everything")
    cpu_s = float(told["used_cpu_user"]) + float(told["used_cpu_sys"])
    commands = sum(int(each["calls"]) for name, each in told.items() if name.startswith("cmdstat_"))
    network = int(told["total_net_input_bytes"]) + int(told["total_net_output_bytes"])
    memory, log = int(told["used_memory"]), int(told["aof_current_size"])
    return Spent(cpu_s * 1e6, commands, network, memory, log)
