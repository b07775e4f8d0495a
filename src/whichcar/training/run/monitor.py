"""Monitoring one value over the epochs, for early stopping, lowering the rate and keeping the best checkpoint."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from whichcar.config.experiment import ReduceOnPlateau


@dataclass
class MetricMonitor:
    """Counts the epochs since `monitor` last improved by more than `min_delta`, as Keras' callbacks do."""

    monitor: str
    mode: Literal["auto", "min", "max"] = "auto"
    min_delta: float = 0.0
    best: float | None = None
    waited: int = 0
    cooldown: int = 0

    def improved(self, values: dict[str, Any]) -> bool:
        """Add an epoch's values and return whether the monitored value is the best so far."""
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

    def has_waited(self, patience: int) -> bool:
        """Return whether `patience` epochs passed without improvement; 0 counts as 1, as in Keras' callbacks."""
        return self.waited >= max(1, patience)

    def state(self) -> dict[str, Any]:
        """Return what must be saved to resume counting."""
        return {key: asdict(self)[key] for key in ("best", "waited", "cooldown")}

    def restore(self, state: dict[str, Any]) -> None:
        """Resume from a saved state."""
        self.best, self.waited, self.cooldown = state["best"], state["waited"], state["cooldown"]

    @property
    def larger_is_better(self) -> bool:
        """Whether larger values are better."""
        return self.mode == "max" or (self.mode == "auto" and ("acc" in self.monitor or self.monitor == "epoch"))

    def _gain(self, value: float, best: float) -> float:
        return value - best if self.larger_is_better else best - value


def rate_after(monitor: MetricMonitor, settings: ReduceOnPlateau, rate: float) -> float:
    """Return the learning rate from the next epoch on, as Keras' ReduceLROnPlateau sets it; it is never raised.

    Args:
        monitor: updated with the last epoch's values; lowering the rate starts its cooldown.
        rate: the learning rate so far.
    """
    if not monitor.has_waited(settings.patience):
        return rate
    monitor.waited, monitor.cooldown = 0, settings.cooldown
    return min(rate, max(rate * settings.factor, settings.min_lr))
