"""Why a request is not answered, as its client reads it: a status and one sentence."""

from __future__ import annotations

from collections.abc import Mapping


class Refused(Exception):
    """A request that is not answered, with its HTTP status and the sentence that says why and what would do."""

    def __init__(self, status: int, sentence: str, reason: str, headers: Mapping[str, str] | None = None) -> None:
        """Keep them; `reason` is one or two words, for programs and metrics."""
        super().__init__(sentence)
        self.status, self.sentence, self.reason, self.headers = status, sentence, reason, dict(headers or {})


def busy(sentence: str, reason: str, seconds: int = 1) -> Refused:
    """Return the refusal of a request that may be sent again after a while."""
    return Refused(503, sentence, reason, {"Retry-After": str(seconds)})
