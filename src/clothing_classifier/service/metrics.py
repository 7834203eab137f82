"""Figures for Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)


class Metrics:
    """One service's figures. Paths and kinds are from fixed sets, so that no client can make them grow."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # a further series for each, which nobody asks for
        registry = self._registry = CollectorRegistry()
        self.requests = Counter(
            "clothing_requests", "Answered requests.", ("path", "method", "status"), registry=registry
        )
        self.seconds = Histogram(
            "clothing_request_seconds",
            "From a request's head to its answer.",
            ("path",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.errors = Counter("clothing_errors", "Requests and photos that failed.", ("of", "kind"), registry=registry)
        self.photos = Counter("clothing_photos", "Classified photos.", ("sure",), registry=registry)
        self.decoding = Histogram(
            "clothing_decoding_seconds", "From a photo's arrival to its pixels.", buckets=_SECONDS, registry=registry
        )
        self.batches = Histogram(
            "clothing_batch_photos", "Photos computed together.", buckets=(1, 2, 3, 4, 6, 8, 12, 16), registry=registry
        )
        self.batch_seconds = Histogram(
            "clothing_batch_seconds", "Computing one batch.", buckets=_SECONDS, registry=registry
        )
        ProcessCollector(registry=registry)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Add a figure that is asked for when it is read."""
        Gauge(f"clothing_{name}", text, registry=self._registry).set_function(value)

    def text(self) -> bytes:
        """Return all figures in Prometheus's text format."""
        return generate_latest(self._registry)
