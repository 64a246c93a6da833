"""What Prometheus may know: numbers, and labels that are known before a request comes.

Labels are paths of the route table, outcomes, error codes, one digest and one version.
No model name, id, key or text of a request ever becomes one.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from attest._version import __version__
from gateway.exchange import Exchange, Sealed

__all__ = ["PREFIX", "Clock", "Metrics"]

PREFIX = "attest_gateway"
# Signing takes 0.1 to 1 ms, a commit 3 ms; the alert on slow signing is at 100 ms.
_SHORT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
# Answers take from a few ms to the ten minutes that the engine may be silent for.
_LONG = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 180, 600)

M = TypeVar("M", bound=MetricWrapperBase)


class _Children(dict[tuple[str, ...], M], Generic[M]):
    """A metric's children by their labels: `labels()` costs 8 µs, a look here none."""

    def __init__(self, metric: M) -> None:
        self._metric = metric

    def __missing__(self, key: tuple[str, ...]) -> M:
        child = self[key] = self._metric.labels(*key)
        return child


class Clock(Collector):
    """A histogram of seconds for one thread, at a fifth of the library's cost.

    Args:
        name: without the prefix and without a label.
        text: for whoever reads the page.
        bounds: upper bounds of the buckets, ascending; one without a bound follows.
        label: its name, where there is one.
    """

    def __init__(
        self, name: str, text: str, bounds: Sequence[float], label: str = ""
    ) -> None:
        self._name, self._text, self._label = f"{PREFIX}_{name}", text, label
        self._bounds = tuple(bounds)
        self._found: dict[str, tuple[list[int], list[float]]] = {}
        if not label:
            self._row("")

    def _row(self, value: str) -> tuple[list[int], list[float]]:
        row = self._found[value] = [0] * (len(self._bounds) + 1), [0.0]
        return row

    def observe(self, seconds: float, value: str = "") -> None:
        """Count one, under a value of the label."""
        counts, total = self._found.get(value) or self._row(value)
        counts[bisect_left(self._bounds, seconds)] += 1
        total[0] += seconds

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client."""
        labels = [self._label] if self._label else []
        metric = HistogramMetricFamily(self._name, self._text, labels=labels)
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        for value, (counts, total) in self._found.items():
            buckets = list(zip(names, accumulate(counts), strict=True))
            metric.add_metric([value] if labels else [], buckets, total[0])
        yield metric


class Metrics:
    """The counters and clocks of one process, in a registry of their own.

    Attributes:
        registry: where they are; scraping goes through `gateway.scrape`.
        requests: time from a request that was admitted to the end of its answer, by
            path.
        refused: errors that were answered without an attestation, by (path, code).
        failures: answers that were withheld for want of an attestation, by (code,).
        store_failures: transactions of the store that failed.
        hashing: how long manifest and files were checked at the last start, 0 before
            the first and where there are no files.
        hashed: bytes that this check read; none of what the kernel vouches for.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._clock(
            "request_duration_seconds",
            "From an admitted request to the end of its answer.",
            _LONG,
            "endpoint",
        )
        self.refused = _Children(
            self._counter(
                "responses_refused_total",
                "Errors that were answered without an attestation.",
                ("endpoint", "reason"),
            )
        )
        self._attested = _Children(
            self._counter(
                "responses_attested_total",
                "Answers that were signed and stored.",
                ("endpoint", "outcome"),
            )
        )
        self.failures = _Children(
            self._counter(
                "attestation_failures_total",
                "Answers that were withheld, since they could not be attested.",
                ("reason",),
            )
        )
        # A rate needs a zero to begin with.
        self.failures["store",].inc(0)
        self.store_failures = self._counter(
            "store_write_failures_total", "Transactions of the store that failed."
        )
        self._signing = self._clock(
            "signing_duration_seconds", "Gathering and signing the claims.", _SHORT
        )
        self._storing = self._clock(
            "store_write_duration_seconds",
            "Until an attestation is on disk, its wait for a batch included.",
            _SHORT,
        )
        self._engine = self._clock(
            "upstream_request_duration_seconds",
            "From asking the engine to the end of its answer; of a stream that is also "
            "as slow as its reader.",
            _LONG,
        )
        self._added = self._clock(
            "added_latency_seconds",
            "Between a request's body and its stored attestation, less the time that "
            "the engine was asked. The passing on of a stream's events is not in it.",
            _SHORT,
        )
        self.hashing = Gauge(
            "weights_verification_duration_seconds",
            "How long the check of the model's files took at the last start.",
            namespace=PREFIX,
            registry=self.registry,
        )
        self.hashed = Gauge(
            "weights_verification_bytes",
            "How much of the model's files the check at the last start read.",
            namespace=PREFIX,
            registry=self.registry,
        )
        Gauge(
            "build_info",
            "Version of the gateway.",
            ("version",),
            namespace=PREFIX,
            registry=self.registry,
        ).labels(__version__).set(1)

    def attested(self, path: str, exchange: Exchange, sealed: Sealed) -> None:
        """Count one exchange that was sealed a moment ago."""
        self._attested[path, exchange.outcome].inc()
        self._signing.observe(sealed.signing_seconds)
        self._storing.observe(sealed.storing_seconds)
        if exchange.engine_seconds:
            self._engine.observe(exchange.engine_seconds)
            self._added.observe(exchange.age() - exchange.engine_seconds)

    def _counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(name, text, labels, namespace=PREFIX, registry=self.registry)

    def _clock(
        self, name: str, text: str, bounds: tuple[float, ...], label: str = ""
    ) -> Clock:
        clock = Clock(name, text, bounds, label)
        self.registry.register(clock)
        return clock
