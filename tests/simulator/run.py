"""One run: a seed becomes a world with its faults, it heals, and what was seen is judged."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Final

from broker.core.dedup import DedupLimits
from broker.core.model import Account, Membership, Room
from broker.core.ports import StoreLimits
from tests.proof.checker import judge
from tests.simulator.broker import Broker
from tests.simulator.disk import Disk, Place, repeatable
from tests.simulator.door import Breach, Door
from tests.simulator.faults import AFTER, BEFORE
from tests.simulator.journal import Journal, Reader, Stay, to_history, vanished
from tests.simulator.network import Network
from tests.simulator.node import Node
from tests.simulator.plan import MINUTE, SECOND, Plan
from tests.simulator.redis_disk import RedisDisk
from tests.simulator.scheduler import Scheduler
from tests.simulator.scripts import PASSWORD, Phase, Receiver, Sender, Wanderer, drain
from tests.simulator.wire import Harm

#: Simulated minutes after the last fault within which everything must be settled and read: a
#: silent subscription, a heartbeat, the longest patience of a session, and as much again.
SETTLED_MAX: Final = 8 * MINUTE
#: ... and within which all that was left has been read by asking.
_DRAINED_MAX: Final = 5 * MINUTE
#: How often the world looks whether it is done.
_LOOK_US: Final = SECOND


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a seed."""

    plan: Plan
    hash: str
    breaches: tuple[Breach, ...]
    simulated_us: int
    events: int
    sends: int
    reads: int
    lives: int
    faults: Counter[str]


def run(seed: int, place: Place, trace: Callable[[str], None] | None = None) -> Result:
    """Carry out the run of a seed; ``trace`` is handed each event as a line."""
    with _silence():
        world = _World(place.plan(seed), place, trace)
        luck = Random(f"epochs {seed}")
        with repeatable(place, luck, world.broker.clock.machine_ms, lambda: world.time.now):
            return world.carry_out()


@contextmanager
def _silence() -> Iterator[None]:
    """Let the broker not say, thousands of times, that its disk failed."""
    log = logging.getLogger("kotak")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(level)


class _Site:
    """One broker, with its door, its way to the data, and the network of its users."""

    def __init__(self, world: _World, disk: Disk, name: str) -> None:
        plan, time = world.plan, world.time
        self.disk = disk
        self.network = Network(
            time,
            Random(f"network {name}{plan.seed}"),
            latency_us=plan.latency_us,
            late_frames=plan.late_frames,
        )
        luck = Random(f"broker {name}{plan.seed}")
        self.broker = Broker(time, luck, self.network, disk, plan, name=name)
        self.door = Door(time, self.network, self.broker, world.journal)
        self.broker.observer = self.door
        self.phase = Phase(self.door, late_frames=plan.late_frames)


class _World:
    """All parts of one run."""

    def __init__(self, plan: Plan, place: Place, trace: Callable[[str], None] | None) -> None:
        self.plan = plan
        self.time = Scheduler(trace)
        self.journal = Journal(own_places=plan.engine == "redis")
        self._luck = Random(f"faults {plan.seed}")
        disk = place.disk(plan, _limits(plan))
        #: The brokers, and the one that something happens to now.
        self.sites = [_Site(self, disk, "")]
        for number in range(1, plan.brokers):
            self.sites.append(_Site(self, disk.beside(), f"{number} "))
            self.sites[-1].door.join(self.door)
        self.site = self.sites[0]
        self.broker.between = self._between_lives
        self.faults: Counter[str] = Counter()
        self._putting_back = False
        self._backed_up: int | None = None
        self._end = int(plan.minutes * MINUTE)
        self.time.log(str(plan))
        self._nodes = self._people()

    @property
    def door(self) -> Door:
        return self.sites[0].door

    @property
    def broker(self) -> Broker:
        return self.site.broker

    @property
    def network(self) -> Network:
        return self.site.network

    # --- the stage -------------------------------------------------------------------------------

    def _people(self) -> list[Node]:
        plan = self.plan
        nodes = []
        for user in plan.users:
            phase = self._site_of(user).phase
            others = tuple(each for each in plan.users if each != user)
            sender = Sender(phase, others, plan.rooms)
            nodes.append(self._node(f"{user} sends", user, "", sender.script))
        for number, (user, device, how) in enumerate(plan.receivers):
            self.journal.readers.add(Reader(user, device))
            receiver = Receiver(self._site_of(user).phase, how)
            nodes.append(self._node(f"{user} reads {number}", user, device, receiver.script))
        if plan.wandering:
            wanderer = Wanderer(self._site_of(plan.users[-1]).phase, plan.rooms)
            nodes.append(self._node(f"{plan.users[-1]} comes", plan.users[-1], "", wanderer.script))
        return nodes

    def _site_of(self, user: str) -> _Site:
        return self.sites[self.plan.users.index(user) % len(self.sites)]

    def _node(self, name: str, user: str, device: str, script: object) -> Node:
        return Node(
            name,
            user,
            device,
            time=self.time,
            luck=Random(f"{name} {self.plan.seed}"),
            network=self._site_of(user).network,
            journal=self.journal,
            plan=self.plan,
            script=script,  # type: ignore[arg-type]
        )

    def _furnish(self) -> None:
        """Put accounts, devices and rooms into the store before anything can fail."""
        engine, plan = self.broker.engine, self.plan
        with engine.batch():
            for user in plan.users:
                engine.put(Account(user, user.title(), f"v1:{PASSWORD}"))
            for reader in sorted(self.journal.readers):
                engine.acknowledge(reader.user, reader.device, 0)
            for room in plan.rooms:
                engine.put(Room(room, plan.users[0], True, False))
                for user in plan.users[: -1 if plan.wandering else None]:
                    engine.put(Membership(room, user, True))
                    self.journal.stays.append(Stay(user, room, -1, -1))

    def carry_out(self) -> Result:
        for site in self.sites:
            site.broker.start()
        self._furnish()
        for node in self._nodes:
            node.start()
        self._plan_faults()
        self.time.run(self._end)
        self._heal()
        if not self._run_until(self._is_settled, SETTLED_MAX):
            self.door.breach("starved", f"8 minutes after the last fault: {self._unsettled()}")
        self._drain()
        if self.time.exhausted:
            self.door.breach("starved", f"{self.time.events:,} events, and no end of them")
        return self._judge()

    # --- the end ---------------------------------------------------------------------------------

    def _heal(self) -> None:
        self.time.log("the faults are over")
        for site in self.sites:
            site.phase.settling = True
            site.broker.faults.disarm()
            if isinstance(site.disk, RedisDisk):
                site.disk.wire.calm()
            site.network.heal()
        for node in self._nodes:
            node.turn()

    def _run_until(self, done: Callable[[], bool], at_most: int) -> bool:
        end = self.time.now + at_most
        while self.time.now < end and not done() and not self.time.exhausted:
            self.time.run(min(self.time.now + _LOOK_US, end))
        return done()

    def _is_settled(self) -> bool:
        return not self._unsettled()

    def _unsettled(self) -> str:
        """Tell who has not finished, or what has not been read."""
        for node in self._nodes:
            if not node.finished and " sends" in node.name:
                return f"{node.name} has no answer"
        if any(site.broker.service is None for site in self.sites):
            return "a broker is down"
        for reader in sorted(self.journal.readers):
            if self.site.disk.waits(self.broker.engine, reader.user, reader.device):
                return f"{reader} has not acknowledged all"
        return ""

    def _drain(self) -> None:
        """Find each mailbox empty, by asking."""
        left = set(self.journal.readers)
        for reader in sorted(left):
            script = drain(lambda reader=reader: left.discard(reader))  # type: ignore[misc]
            node = self._node(f"{reader} drains", reader.user, reader.device, script)
            node.start()
        if not self._run_until(lambda: not left, _DRAINED_MAX):
            self.door.breach("starved", f"not drained: {', '.join(map(str, sorted(left)))}")

    def _judge(self) -> Result:
        history = to_history(self.journal)
        verdict = judge(history)
        breaches = [*self.door.breaches]
        breaches += [Breach("L1", each) for each in vanished(self.journal)]
        breaches += [Breach(each.law, str(each)[4:]) for each in verdict.breaches]
        if verdict.undecided and not breaches:
            breaches.append(Breach("L1", str(verdict)))
        for breach in breaches:
            self.time.log(str(breach))
        return Result(
            plan=self.plan,
            hash=self.time.hash,
            breaches=tuple(breaches),
            simulated_us=self.time.now,
            events=self.time.events,
            sends=len(self.journal.sends),
            reads=verdict.messages_read,
            lives=sum(site.broker.lives for site in self.sites),
            faults=self.faults,
        )

    # --- faults ----------------------------------------------------------------------------------

    def _plan_faults(self) -> None:
        plan = self.plan
        for kind, rate, strike in (
            ("crash", plan.crashes, self._crash),
            ("failure", plan.failures, self._fail),
            ("full", plan.full, self._fill),
            ("outage", plan.outages, self._cut_off),
            ("restore", plan.restores, self._restore),
            ("jump", plan.jumps, self._jump),
            ("cut", plan.cuts, self._cut),
            ("hole", plan.holes, self._hole),
            ("stall", plan.stalls, self._stall),
            ("partition", plan.partitions, self._part),
            ("death", plan.deaths, self._kill),
            ("harm", plan.harms, self._harm),
        ):
            if rate:
                self._next_fault(kind, rate, strike)

    def _next_fault(self, kind: str, rate: float, strike: Callable[[], None]) -> None:
        def happen() -> None:
            if self.site.phase.settling:
                return
            if len(self.sites) > 1:
                self.site = self._luck.choice(self.sites)
            self.faults[kind] += 1
            self.time.log(f"fault: {kind}")
            strike()
            self._next_fault(kind, rate, strike)

        self.time.after(self._luck.expovariate(rate) * MINUTE, happen)

    def _crash(self) -> None:
        self.broker.faults.arm("crash", *self._where())

    def _fail(self) -> None:
        where = self._where() if self._luck.random() < 0.5 else (self._luck.randint(1, 3), BEFORE)
        self.broker.faults.arm("fail", *where)

    def _where(self) -> tuple[int, str | None]:
        """Return a point of a turn: any, or one of those that matter most."""
        if self._luck.random() < 0.5:
            return self._luck.randint(1, 60), None
        points = (BEFORE, AFTER, "append", "acknowledge", "after the turn", "after the replies")
        return self._luck.randint(1, 5), self._luck.choice(points)

    def _fill(self) -> None:
        self.broker.faults.full = self._luck.choice(("step", "commit"))
        self.time.after(self._luck.choice((0.1, 2, 30)) * SECOND, self._make_room)

    def _make_room(self) -> None:
        """End a full disk; now and then by a death, which shows what was not written then."""
        for site in self.sites:
            site.broker.faults.full = ""
        if self.plan.crashes and not self.site.phase.settling and self._luck.random() < 0.5:
            self.broker.faults.arm("crash", self._luck.randint(1, 10))

    def _cut_off(self) -> None:
        """Have the store vanish at some point, also right after a commit, and come back."""
        self.broker.faults.arm("outage", *self._where())
        self.time.after(self._luck.choice((0.1, 2, 30)) * SECOND, self._reach)

    def _harm(self) -> None:
        """Break some of the next exchanges with the server."""
        assert isinstance(self.site.disk, RedisDisk)
        harms = [each for each in Harm if each is not Harm.LATE or not self.plan.wandering]
        if not self.plan.kills:
            harms.remove(Harm.KILLED)
        count = self._luck.choice((1, 1, 2, 5, 20))
        chosen = [self._luck.choice(harms)] * count
        if self._luck.random() < 0.5:
            chosen = [self._luck.choice(harms) for _ in range(count)]
        self.faults.update(f"redis {each.name.lower()}" for each in chosen)
        self.site.disk.wire.arm(chosen, self._luck.randint(0, 12))

    def _reach(self) -> None:
        for site in self.sites:
            site.broker.faults.gone = False

    def _restore(self) -> None:
        self._putting_back = True
        self.broker.die("an earlier state is put back", self._luck.uniform(0.1, 10) * SECOND)

    def _between_lives(self) -> None:
        """Put the copy back, or make one."""
        if not self.plan.restores:
            return
        if self._putting_back and self._backed_up is not None:
            self.site.disk.put_back()
            self.journal.restored.append((self.time.now, self._backed_up))
            self.door.put_back()
            self.time.log("an earlier state was put back")
        else:
            self.site.disk.back_up()
            self._backed_up = self._last_seq
        self._putting_back = False

    @property
    def _last_seq(self) -> int:
        """The highest sequence that was committed before the broker went down."""
        return self.site.disk.last(self.broker.engine)

    def _jump(self) -> None:
        """Set the clock to anything between a minute behind and as far ahead as may be."""
        self.broker.clock.jumped_ms = self._luck.randint(-60_000, self.plan.ahead_ms_max)

    def _cut(self) -> None:
        links = list(self.network.links.values())
        if links:
            self.network.cut(self._luck.choice(links))

    def _hole(self) -> None:
        links = list(self.network.links.values())
        if links:
            self.network.fall_silent(self._luck.choice(links))

    def _stall(self) -> None:
        links = list(self.network.links.values())
        if links:
            until = self.time.now + int(self._luck.choice((0.5, 5, 90)) * SECOND)
            self._luck.choice(links).stalled_until = until

    def _part(self) -> None:
        node = self._luck.choice(self._nodes)
        self.site = self._site_of(node.user)
        until = self.time.now + int(self._luck.choice((1, 10, 60)) * SECOND)
        self.network.cut_off(node, until)

    def _kill(self) -> None:
        node = self._luck.choice([each for each in self._nodes if " comes" not in each.name])
        # A device may also stay away for longer than messages are kept.
        down = self._luck.choice((0.01, 1, 10, 10, 400)) * SECOND
        # All are back when the faults are over.
        node.die(min(down, max(self._end - self.time.now, 0)))


def _limits(plan: Plan) -> StoreLimits:
    return StoreLimits(
        mailbox_messages_max=plan.mailbox_messages_max,
        retention_read_ms=plan.retention_read_ms,
        # Never longer than messages are kept: it is read back from them.
        dedup=DedupLimits(window_ms=plan.retention_read_ms),
    )
