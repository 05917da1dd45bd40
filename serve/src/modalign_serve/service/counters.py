"""The metrics that Prometheus reads at `/metrics`."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """Counts and times of one service, in a registry of its own.

    The values of labels come from short fixed lists (routes, methods, statuses, models, kinds),
    never from ids or paths in a request.

    Example:
        >>> metrics = Metrics()
        >>> metrics.request("/health", "GET", 200, 0.001)
        >>> 'modalign_requests_total{method="GET",route="/health",status="200"} 1.0' in (
        ...     metrics.text().decode())
        True
    """

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._requests = Counter(
            "modalign_requests", "Requests answered.", ["route", "method", "status"],
            registry=registry,
        )  # fmt: skip
        self._request_seconds = Histogram(
            "modalign_request_seconds", "From the request's head to the end of its answer.",
            ["route"], buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.in_flight = Gauge(
            "modalign_requests_in_flight", "Requests started and not answered.", registry=registry
        )
        self.lists = Counter(
            "modalign_lists", "Lists of items answered.", ["model", "asked"], registry=registry
        )
        self.rank_seconds = Histogram(
            "modalign_rank_seconds", "Scoring and selecting for one batch of requests.",
            ["model"], buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.batch = Histogram(
            "modalign_rank_batch", "Requests answered by one matrix product.", ["model"],
            buckets=(1, 2, 4, 8, 16, 32, 64, 128), registry=registry,
        )  # fmt: skip
        self.events = Counter(
            "modalign_feedback_events", "Events of feedback: new, duplicate, conflict or failed.",
            ["result"], registry=registry,
        )  # fmt: skip
        self.model_events = Counter(
            "modalign_feedback_of_model",
            "New events by the model assigned to their user, without calls that hold duplicates.",
            ["model", "kind"], registry=registry,
        )  # fmt: skip
        self.commit_seconds = Histogram(
            "modalign_feedback_commit_seconds", "One durable write of all waiting events.",
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.swaps = Counter(
            "modalign_swaps", "Swaps of artifacts while serving.", ["model", "result"],
            registry=registry,
        )  # fmt: skip
        self.model_info = Gauge(
            "modalign_model_info", "1 for the artifact that a model is served from.",
            ["model", "version"], registry=registry,
        )  # fmt: skip
        self.limited = Counter(
            "modalign_limited", "Requests refused by a limit.", ["limit"], registry=registry
        )
        self._known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request.

        Args:
            route: template of the path.
            method: of HTTP.
            status: of HTTP.
            seconds: from its head to the end of its answer.
        """
        key = (route, method, status)
        if key not in self._known:
            # To look a child up by its labels costs more than to count it.
            self._known[key] = (
                self._requests.labels(route, method, str(status)),
                self._request_seconds.labels(route),
            )
        counter, times = self._known[key]
        counter.inc()
        times.observe(seconds)

    def text(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        return generate_latest(self.registry)
