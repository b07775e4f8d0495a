"""Watching one value over the epochs: early stopping, lowering the rate and keeping the best share this."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass
class Watch:
    """Counts the epochs since `monitor` last improved by more than `min_delta`, as Keras' callbacks do."""

    monitor: str
    mode: Literal["auto", "min", "max"] = "auto"
    min_delta: float = 0.0
    best: float | None = None
    waited: int = 0
    cooldown: int = 0

    def improved(self, values: dict[str, Any]) -> bool:
        """Look at an epoch's values; True if the watched one is the best so far."""
        value = float(values[self.monitor])
        if self.cooldown:
            self.cooldown -= 1
            self.waited = 0
        if self.best is None or self._gain(value, self.best) > self.min_delta:
            if not math.isnan(value):
                self.best = value
            self.waited = 0
            return True
        self.waited += 0 if self.cooldown else 1
        return False

    def state(self) -> dict[str, Any]:
        """What must be saved to go on counting."""
        return {key: asdict(self)[key] for key in ("best", "waited", "cooldown")}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.best, self.waited, self.cooldown = state["best"], state["waited"], state["cooldown"]

    def _gain(self, value: float, best: float) -> float:
        larger = self.mode == "max" or (self.mode == "auto" and "acc" in self.monitor)
        return value - best if larger else best - value
