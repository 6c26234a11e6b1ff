"""What the fuzzer finds: an input after which something did not hold."""

from __future__ import annotations

from broker.wire.errors import Code, WireError

#: A refusal is a sentence for a person. It may quote 32 characters of a field, each as ten.
SENTENCE_CHARS_MAX = 500


class Breach(AssertionError):
    """Something that must hold does not; the text says what. Whatever else is raised is one too."""


def require(holds: object, sentence: str) -> None:
    """Raise `Breach` with the sentence unless it holds."""
    if not holds:
        raise Breach(sentence)


def judge_refusal(error: WireError) -> None:
    """Check that a refusal is one that the protocol knows: a code, a sentence, a time to wait."""
    require(type(error.code) is Code, "a refusal has a code of the protocol")
    require(error.code is not Code.INTERNAL, "no input is a fault of the broker")
    require(0 < len(error.message) <= SENTENCE_CHARS_MAX, "a refusal says what to do, briefly")
    wait = error.retry_after_ms
    require(wait is None or wait > 0, "the time to wait is one")
