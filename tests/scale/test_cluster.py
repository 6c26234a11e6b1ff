"""The harness with real servers: a cluster comes together, fails over, and leaves nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.scale.cluster import PRIMARIES, Cluster, Single
from tests.scale.node import RedisError, wait_until

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    shutil.which("redis-server") is None and os.environ.get("CI") != "true",
    reason="there is no redis-server",
)


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not pytest's: its path may be too long for what is made in it.
    with TemporaryDirectory(prefix="kotak-scale-") as folder:
        yield Path(folder)


def gone(port: int) -> bool:
    """Tell whether no process listens on a port."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    local = (line.split()[1:4:2] for line in lines)
    return not any(at.endswith(f":{port:04X}") and state == "0A" for at, state in local)


class TestNode:
    def test_a_server_keeps_what_it_confirmed_over_a_kill(self, folder: Path) -> None:
        with Single(folder) as server:
            (node,) = server.nodes
            node.ask("SET", "kept", "yes")
            before_s = node.cpu_seconds()
            node.kill()
            assert not node.alive
            node.start()
            assert node.ask("GET", "kept") == "yes"
            assert node.cpu_seconds() >= before_s
        assert gone(node.port)

    def test_one_that_stands_still_is_noticed_and_goes_on(self, folder: Path) -> None:
        with Single(folder) as server:
            (node,) = server.nodes
            node.stop()
            with pytest.raises(Exception, match="Timeout"):
                node.ask("PING")
            node.go_on()
            assert node.ask("PING")

    def test_one_that_cannot_start_says_why(self, folder: Path) -> None:
        server = Single(folder)
        server.nodes[0]._options.append("--no-such-option")
        with pytest.raises(RedisError, match="ended at its start"):
            server.__enter__()

    def test_waiting_ends(self) -> None:
        with pytest.raises(RedisError, match="it does not rain"):
            wait_until(lambda: False, "it does not rain", seconds=0.05)


def test_a_cluster_comes_together_replaces_a_primary_and_leaves_nothing(folder: Path) -> None:
    with Cluster(folder, node_timeout_ms=500) as cluster:
        primary, replica = cluster.pairs()[0]
        assert len(cluster.primaries()) == PRIMARIES
        primary.ask("SET", "{06S}", "kept")  # of slot 0
        wait_until(lambda: primary.ask("WAIT", 1, 1_000) == 1, "the replica does not have it")
        primary.kill()
        wait_until(lambda: replica in cluster.primaries(), "nobody takes over")
        assert replica.ask("GET", "{06S}") == "kept"
        primary.start()
        cluster.wait_until_whole()
        assert primary not in cluster.primaries()
    assert all(gone(node.port) for node in cluster.nodes)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["load", "--seconds", "3", "--mailboxes", "12"],
        ["fail", "--fault", "behind", "--seconds", "12", "--mailboxes", "12"],
        ["roll", "--seconds", "12", "--mailboxes", "12"],
        ["push", "--seconds", "2"],
        ["units", "--users", "200"],
    ],
    ids=lambda words: words[0],
)
def test_a_trial_holds(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.scale", *words, "--json"],
        cwd=ROOT, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)
