"""Progress of a training run, with the sums of the current epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass

TIMED_STEPS, TIMED_SECONDS = 5, 1.0  # either is enough for a meaningful rate


@dataclass
class Progress:
    """Progress of a training run. `step` counts the epoch's steps, including one whose results are still missing.

    The sums, `seen` and `timed` (images) cover the current epoch, `seconds` the whole run.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: float = 0.0
    seen: int = 0
    timed: int = 0
    timed_seconds: float = 0.0
    seconds: float = 0.0
    rate_factor: float = 1.0

    @property
    def loss(self) -> float:
        """Mean training loss of the epoch so far."""
        return self.loss_sum / self.seen

    @property
    def accuracy(self) -> float:
        """Training accuracy of the epoch so far."""
        return self.correct / self.seen

    @property
    def shown(self) -> dict[str, float]:
        """Loss and accuracy of the epoch so far, for a progress bar."""
        return {"loss": self.loss, "accuracy": self.accuracy} if self.seen else {}

    def add(self, loss: float, accuracy: float, count: int) -> None:
        """Add the results of a step on `count` images."""
        self.loss_sum += loss * count
        self.correct += accuracy * count
        self.seen += count

    def add_time(self, count: int, seconds: float) -> None:
        """Add the time of a step that compiled nothing."""
        self.timed += count
        self.timed_seconds += seconds

    def images_per_second(self, batch_size: int) -> float:
        """Return the throughput of the epoch's training steps, or NaN if too few were timed for a meaningful value."""
        is_enough = self.timed / batch_size >= TIMED_STEPS or self.timed_seconds >= TIMED_SECONDS
        return self.timed / self.timed_seconds if is_enough else math.nan

    def next_epoch(self) -> Progress:
        """Return the progress at the start of the next epoch."""
        return Progress(self.epoch + 1, seconds=self.seconds, rate_factor=self.rate_factor)

    def __str__(self) -> str:
        return f"in epoch {self.epoch + 1}, batch {self.step}" if self.step else f"after epoch {self.epoch}"
