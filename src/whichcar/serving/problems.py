"""Why a request is refused, as its client reads it: a status and one sentence."""

from __future__ import annotations

from collections.abc import Mapping


class Refused(Exception):
    """A request is refused, with its HTTP status and a sentence that gives the reason and a remedy."""

    def __init__(self, status: int, sentence: str, reason: str, headers: Mapping[str, str] | None = None) -> None:
        """Store the arguments; `reason` is one or two words, for programs and metrics."""
        super().__init__(sentence)
        self.status, self.sentence, self.reason, self.headers = status, sentence, reason, dict(headers or {})


def busy(sentence: str, reason: str, seconds: int = 1) -> Refused:
    """Return the refusal of a request that may be sent again after `seconds`."""
    return Refused(503, sentence, reason, {"Retry-After": str(seconds)})
