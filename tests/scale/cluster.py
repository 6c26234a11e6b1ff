"""Redis as brokers find it: one server, or a Cluster of primaries with a replica each.

All are real processes on ports and in folders of their own; none of them outlives the program.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

import redis

from tests.scale.node import Node, RedisError, check_installed, wait_until

SLOTS: Final = 16_384
PRIMARIES: Final = 3
#: How long a primary may be silent before its replica is voted into its place. Redis's default is
#: 15 s; here it is what `fail` waits for.
NODE_TIMEOUT_MS: Final = 2_000


class Servers(Protocol):
    """One Redis, whatever it consists of."""

    @property
    def nodes(self) -> list[Node]: ...
    @property
    def url(self) -> str:
        """What `kotak serve --store` is told."""


class _Running:
    """A context manager that starts nodes and ends them for certain."""

    nodes: list[Node]

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def start(self) -> None:
        """Start all nodes. Errors: `RedisError`."""
        check_installed()
        for node in self.nodes:
            node.start()

    def end(self) -> None:
        """Kill all nodes: what they kept is thrown away with their folder."""
        for node in self.nodes:
            node.kill()


class Single(_Running):
    """One server."""

    def __init__(self, folder: Path) -> None:
        self.nodes = [Node(folder / "redis")]

    @property
    def url(self) -> str:
        return f"redis://{self.nodes[0].address}"


class Cluster(_Running):
    """Three primaries, each with a replica."""

    def __init__(self, folder: Path, *, node_timeout_ms: int = NODE_TIMEOUT_MS) -> None:
        options = (
            *("--cluster-node-timeout", str(node_timeout_ms)),
            # The mailboxes of the other primaries go on while one is away.
            *("--cluster-require-full-coverage", "no"),
            *("--repl-diskless-sync-delay", "0"),
        )
        self.nodes = [
            Node(folder / f"redis-{number}", options=options, cluster=True)
            for number in range(2 * PRIMARIES)
        ]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(node.address for node in self.nodes)

    def start(self) -> None:
        """Start the nodes and make a cluster of them, until all agree. Errors: `RedisError`."""
        super().start()
        try:
            self._create()
        except redis.RedisError as error:
            raise RedisError(f"the cluster cannot be made: {error}") from error

    def _create(self) -> None:
        primaries, replicas = self.nodes[:PRIMARIES], self.nodes[PRIMARIES:]
        bounds = [SLOTS * number // PRIMARIES for number in range(PRIMARIES + 1)]
        for node, (low, high) in zip(primaries, pairwise(bounds), strict=True):
            node.ask("CLUSTER", "ADDSLOTSRANGE", low, high - 1)
        first = self.nodes[0]
        for epoch, node in enumerate(self.nodes, 1):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", epoch)
            first.ask("CLUSTER", "MEET", "127.0.0.1", node.port, node.bus_port)
        wait_until(
            lambda: all(_info(node)["cluster_known_nodes"] == str(len(self.nodes))
                        for node in self.nodes),
            "the nodes of the cluster do not find each other",
        )  # fmt: skip
        for primary, replica in zip(primaries, replicas, strict=True):
            name = primary.ask("CLUSTER", "MYID")
            wait_until(partial(_knows, replica, name), "a primary stays unknown")
            replica.ask("CLUSTER", "REPLICATE", name)
        self.wait_until_whole()

    def wait_until_whole(self) -> None:
        """Return when all nodes agree that all is well, and each replica has what its primary has.

        Errors: `RedisError`.
        """
        wait_until(self._whole, "the cluster does not come together")

    def _whole(self) -> bool:
        try:
            well = all(_info(node)["cluster_state"] == "ok" for node in self.nodes)
            return well and len(self.primaries()) == PRIMARIES and all(map(_in_step, self.nodes))
        except redis.RedisError:
            return False

    def pairs(self) -> list[tuple[Node, Node]]:
        """Return the primaries and replicas as they were made."""
        return list(zip(self.nodes[:PRIMARIES], self.nodes[PRIMARIES:], strict=True))

    def primaries(self) -> list[Node]:
        """Return who is a primary with slots now, as its own server says."""
        return [node for node in self.nodes if node.alive and _role(node) == "master"]


def _info(node: Node) -> dict[str, str]:
    found: dict[str, str] = node.ask("CLUSTER INFO")
    return found


def _knows(node: Node, name: str) -> bool:
    return name in node.ask("CLUSTER", "NODES")


def _role(node: Node) -> str:
    try:
        return str(node.ask("ROLE")[0])
    except redis.RedisError:  # it stands still, or is about to end
        return ""


def _in_step(node: Node) -> bool:
    """Tell whether a node is a primary with a replica, or a replica that has all."""
    role = node.ask("ROLE")
    return bool(role[2]) if role[0] == "master" else role[3] == "connected"
