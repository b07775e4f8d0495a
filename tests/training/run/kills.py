"""A process that is killed at a chosen call."""

from __future__ import annotations

import math
from typing import Any

import pytest


class Killed(BaseException):
    """Instead of `kill -9`: nothing catches it."""


class Countdown:
    """Functions that raise `Killed` in place of the first call after `left` others of any of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *functions: tuple[Any, str]) -> None:
        self.left = math.inf
        for owner, name in functions:
            monkeypatch.setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, real: Any) -> Any:  # noqa: ANN401
        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            self.left -= 1
            if self.left < 0:
                raise Killed
            return real(*args, **kwargs)

        return call
