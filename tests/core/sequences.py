"""Between the reference's sequences, which are 1, 2, 3 and so on, and those of an engine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Protocol

#: A sequence that no message has, the same to both sides: years ahead of an engine's clock.
NEVER: Final = 4_000_000_000_000_000


class Sequences(Protocol):
    """Translates what is asked into the engine's sequences, and back what is answered."""

    def learn(self, given: Iterable[int]) -> None:
        """Hear which sequences there are."""

    def asked(self, args: dict[str, Any]) -> dict[str, Any]: ...

    def told(self, body: Any) -> Any: ...


class Same:
    """Of an engine that counts all messages."""

    def learn(self, given: Iterable[int]) -> None:
        pass

    def asked(self, args: dict[str, Any]) -> dict[str, Any]:
        return args

    def told(self, body: Any) -> Any:
        return body


class Rising:
    """Of an engine whose sequences rise with the time: the lowest is the first, and so on."""

    def __init__(self) -> None:
        self._theirs = [0]
        self._ours = {0: 0}

    def learn(self, given: Iterable[int]) -> None:
        new = sorted(set(given) - self._ours.keys())
        assert not new or new[0] > self._theirs[-1], "a later message has a lower sequence"
        for seq in new:
            self._ours[seq] = len(self._theirs)
            self._theirs.append(seq)

    def asked(self, args: dict[str, Any]) -> dict[str, Any]:
        return {key: self._their(value) if key in _ASKED else value for key, value in args.items()}

    def told(self, body: Any) -> Any:
        if isinstance(body, list):
            return [self.told(each) for each in body]
        if not isinstance(body, dict):
            return body
        told = {key: self.told(value) for key, value in body.items()}
        told |= {key: self._our(body[key]) for key in _TOLD & body.keys()}
        if "first" in told:  # one above what there is
            told["first"] = self._our(body["first"] - 1) + 1
        return told

    def _their(self, seq: int) -> int:
        return self._theirs[seq] if seq < len(self._theirs) else seq

    def _our(self, seq: int) -> int:
        return seq if seq >= NEVER else self._ours[seq]


_ASKED: Final = frozenset({"seq", "after", "before"})
_TOLD: Final = frozenset({"seq", "after", "cursor", "last"})
