"""`/metrics`, on a port of its own: whoever scrapes need not reach the answers."""

from collections.abc import Iterable
from typing import Protocol

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from attest import tokens
from gateway.asgi import Receive, Scope, Send, send_body
from gateway.boot import Boot
from gateway.metrics import PREFIX
from gateway.state import AppState

__all__ = ["MetricsPage", "Numbers", "StateCollector"]

_TEXT = (b"content-type", CONTENT_TYPE_LATEST.encode("ascii"))


class StateCollector(Collector):
    """Everything that can be measured of one process, its state read at the scrape.

    Each metric is always there; one that nothing is known of yet has no sample.
    """

    def __init__(self, state: AppState) -> None:
        self._state = state

    def collect(self) -> Iterable[Metric]:
        """The metrics that were counted, then those that are read from the state."""
        yield from self.counted()
        yield from self._now()
        yield from self._of_boot()

    def counted(self) -> Iterable[Metric]:
        """The metrics that were counted."""
        for metric in self._state.metrics.registry.collect():
            # When a counter was made is of no use to anybody, and doubles the page.
            kept = [s for s in metric.samples if not s.name.endswith("_created")]
            metric.samples = kept
            yield metric

    def _now(self) -> Iterable[Metric]:
        state = self._state
        attester = state.attester
        yield _gauge("requests_in_flight", "Requests being served.", state.in_flight)
        yield _gauge(
            "streams_in_progress",
            "Streams whose attestation is still to come.",
            0 if attester is None else attester.open_count,
        )
        yield _gauge(
            "ready", "1 while answers can be had and attested, as /readyz.", state.ready
        )

    def _of_boot(self) -> Iterable[Metric]:
        attester = self._state.attester
        boot = None if attester is None else attester.boot
        manifest = GaugeMetricFamily(
            f"{PREFIX}_manifest_info",
            "Manifest that is answered for.",
            labels=["digest"],
        )
        if boot is not None:
            manifest.add_metric([boot.manifest.digest], 1)
        yield manifest
        yield _gauge(
            "manifest_not_after_timestamp_seconds",
            "When the manifest ends.",
            None if boot is None else boot.manifest.not_after,
        )
        yield _gauge(
            "key_not_after_timestamp_seconds",
            "When the session key's certificate ends.",
            None if boot is None else _key_end(boot),
        )
        yield _gauge(
            "last_verified_timestamp_seconds",
            "The last look that found all as it was; absent where nothing is measured.",
            # 0 stands for never.
            None if boot is None else boot.weights.verified_at or None,
        )


class Numbers(Protocol):
    """Where the numbers of other processes come from."""

    async def collect(self, own: StateCollector) -> list[Metric]:
        """What is known of all processes together, those of this one being `own`."""


class _Collected(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


class MetricsPage:
    """The ASGI application of the metrics port: `GET /metrics` and nothing else.

    It tells of this process alone, or with `workers` of those that answer for it.
    """

    def __init__(self, state: AppState, workers: Numbers | None = None) -> None:
        self._state, self._workers = state, workers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a scrape; needs no API key."""
        del receive
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
        elif scope["path"] != "/metrics":
            await send_body(send, 404, [_TEXT], b"only /metrics is here\n")
        elif scope["method"] not in ("GET", "HEAD"):
            await send_body(send, 405, [_TEXT, (b"allow", b"GET")], b"only GET\n")
        else:
            page = generate_latest(await self._collector())
            await send_body(send, 200, [_TEXT], page)

    async def _collector(self) -> Collector:
        mine = StateCollector(self._state)
        if self._workers is None:
            return mine
        return _Collected(await self._workers.collect(mine))


def _gauge(name: str, text: str, value: float | None) -> Metric:
    """One sample; none where there is no value."""
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, value=value)


def _key_end(boot: Boot) -> int:
    claims = tokens.parse(boot.session.certificate, typ="gateway-key+jwt").claims
    return int(claims["exp"])
