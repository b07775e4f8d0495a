"""The counters of a server, in the format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        """Start at zero."""
        self._registry = registry = CollectorRegistry()
        self.requests = Counter("whichcar_requests", "Requests", ("route", "status"), registry=registry)
        self.seconds = Histogram(
            "whichcar_stage_seconds",
            "Time by stage: reading a request, its oldest image in the queue, decoding and classifying a batch, in all",
            ("stage",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch = Histogram("whichcar_batch_images", "Images of a batch", buckets=_IMAGES, registry=registry)
        self.rejected = Counter("whichcar_rejected", "Requests that were refused", ("reason",), registry=registry)
        self.answers = Counter("whichcar_answers", "Answers by level", ("level",), registry=registry)
        self.problems = Counter("whichcar_unreadable_images", "Images that could not be read", registry=registry)
        self.reloads = Counter("whichcar_reloads", "Models loaded again", ("result",), registry=registry)
        self.model = Gauge("whichcar_model_info", "The model", ("name", "sha256"), registry=registry)

    def watch(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """Add a gauge that is read whenever the metrics are read."""
        Gauge(name, help_text, registry=self._registry).set_function(value)

    def batch_done(self, images: int, waited: float, took: float) -> None:
        """Count a batch."""
        self.batch.observe(images)
        self.seconds.labels("queue").observe(waited)
        self.seconds.labels("inference").observe(took)

    def text(self) -> bytes:
        """Return all metrics as text."""
        return generate_latest(self._registry)
