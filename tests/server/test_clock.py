"""The broker's clock never goes back, and never stands still."""

from __future__ import annotations

from broker.server.assembly import WallClock

_MS_NS = 1_000_000


class Machine:
    """A machine whose clock can be set."""

    def __init__(self) -> None:
        self.ahead_ms = 5_000
        self.true_ms = 0
        self.clock = WallClock(
            lambda: (self.true_ms + self.ahead_ms) * _MS_NS, lambda: self.true_ms * _MS_NS
        )

    def after(self, passed_ms: int) -> int:
        self.true_ms += passed_ms
        return self.clock()


def test_it_tells_the_machine_s_time() -> None:
    machine = Machine()
    assert [machine.after(0), machine.after(7)] == [5_000, 5_007]


def test_set_back_it_goes_at_half_speed_until_time_has_caught_up() -> None:
    machine = Machine()
    machine.after(0)
    machine.ahead_ms = 4_000
    assert machine.after(0) == 5_000
    # However often it is asked.
    assert [machine.after(1) for _ in range(4)] == [5_000, 5_001, 5_001, 5_002]
    assert machine.after(996) == 5_500
    assert machine.after(1_000) == 6_000  # which the machine's says too
    assert machine.after(100) == 6_100


def test_set_back_again_it_does_not_go_back() -> None:
    machine = Machine()
    machine.after(0)
    machine.ahead_ms = 4_000
    machine.after(100)
    machine.ahead_ms = 0
    assert machine.after(100) == 5_050


def test_set_ahead_it_follows_at_once() -> None:
    machine = Machine()
    machine.after(0)
    machine.ahead_ms = 90_000
    assert machine.after(1) == 90_001
