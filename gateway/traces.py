"""OpenTelemetry spans, one for each request, where `traces_endpoint` wants them.

Names follow the semantic conventions for generative AI. The engine is sent the context
of our span in place of the client's, so that its own spans become children of ours. No
prompt, answer, key or token is ever an attribute. The SDK is an extra: without the
setting it is not imported.
"""

from collections.abc import Iterator
from typing import Any, Protocol

from attest._version import __version__
from attest.dialects import Dialect
from attest.errors import ConfigurationError
from gateway.headers import Fields
from gateway.logs import RequestLog

__all__ = ["NO_TRACES", "Span", "Traces", "open_traces"]

_OPERATIONS = {
    Dialect.CHAT: "chat",
    Dialect.COMPLETIONS: "text_completion",
    Dialect.RESPONSES: "chat",
    Dialect.MESSAGES: "chat",
    Dialect.POOLING: "embeddings",
    Dialect.RERANK: "rerank",
    Dialect.AUDIO: "transcription",
}
_CONTEXT = ("traceparent", "tracestate")


class Span(Protocol):
    """One request that is being traced."""

    def forwarded(self, fields: Fields) -> Fields:
        """Header fields whose trace context is this span's."""

    def end(self, entry: RequestLog) -> None:
        """The request is over; say how it went."""


class Traces(Protocol):
    """Where spans go."""

    def begin(self, path: str, dialect: Dialect | None, fields: Fields) -> Span:
        """A span for a request, under the client's trace context if it sent one."""

    def close(self) -> None:
        """Send what is not sent yet. Blocks, for 30 s at most."""


class _Nothing:
    """Traces and span of a gateway that does not trace."""

    def begin(self, path: str, dialect: Dialect | None, fields: Fields) -> Span:
        del path, dialect, fields
        return self

    def forwarded(self, fields: Fields) -> Fields:
        return fields

    def end(self, entry: RequestLog) -> None:
        """Nothing to say."""

    def close(self) -> None:
        """Nothing to send."""


NO_TRACES: Traces = _Nothing()


def open_traces(endpoint: str, gateway_id: str) -> Traces:
    """Traces that go to an OTLP/HTTP endpoint, or nowhere without one.

    Sampling is the SDK's, from `OTEL_TRACES_SAMPLER`; spans that can't be sent are
    dropped.

    Raises:
        ConfigurationError: the SDK is not installed.
    """
    if not endpoint:
        return NO_TRACES
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"traces_endpoint: needs the library {error.name}",
            hint="type: pip install 'attest-gateway[otel]'",
        ) from error
    return OtelTraces(
        BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)), gateway_id
    )


class OtelTraces:
    """Spans through the SDK, to one processor."""

    def __init__(self, processor: Any, gateway_id: str) -> None:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415

        resource = Resource.create(
            {
                "service.name": "attest-gateway",
                "service.version": __version__,
                "service.instance.id": gateway_id,
            }
        )
        # A provider of its own: nothing global, and nothing of the host's.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("attest-gateway", __version__)

    def begin(self, path: str, dialect: Dialect | None, fields: Fields) -> Span:
        """See `Traces.begin`."""
        from opentelemetry.trace import SpanKind  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
            TraceContextTextMapPropagator,
        )

        propagator = TraceContextTextMapPropagator()
        operation = "" if dialect is None else _OPERATIONS[dialect]
        span = self._tracer.start_span(
            operation or path,
            context=propagator.extract(dict(_context(fields))),
            kind=SpanKind.SERVER,
            attributes={"http.route": path},
        )
        if operation:
            span.set_attribute("gen_ai.operation.name", operation)
            span.set_attribute("gen_ai.provider.name", "vllm")
        return _OtelSpan(span, propagator, operation)

    def close(self) -> None:
        """See `Traces.close`."""
        self._provider.shutdown()


class _OtelSpan:
    def __init__(self, span: Any, propagator: Any, operation: str) -> None:
        self._span, self._propagator, self._operation = span, propagator, operation

    def forwarded(self, fields: Fields) -> Fields:
        from opentelemetry.trace import set_span_in_context  # noqa: PLC0415

        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, set_span_in_context(self._span))
        ours = [(k.encode("ascii"), v.encode("ascii")) for k, v in carrier.items()]
        theirs = {name.encode("ascii") for name in _CONTEXT}
        return [*(item for item in fields if item[0] not in theirs), *ours]

    def end(self, entry: RequestLog) -> None:
        from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415

        for name, value in _attributes(entry).items():
            if value not in (None, "", 0):
                self._span.set_attribute(name, value)
        exchange = entry.exchange
        if exchange is not None and exchange.facts.model and self._operation:
            self._span.update_name(f"{self._operation} {exchange.facts.model}")
        status = entry.status if exchange is None else exchange.status
        if status >= 500:
            self._span.set_attribute("error.type", entry.code or str(status))
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


def _attributes(entry: RequestLog) -> dict[str, Any]:
    exchange = entry.exchange
    if exchange is None:
        return {
            "http.response.status_code": entry.status,
            "attest.outcome": str(entry.outcome),
        }
    found: dict[str, Any] = {
        "http.response.status_code": exchange.status,
        "attest.outcome": str(exchange.outcome),
        "attest.id": exchange.id,
        "gen_ai.request.model": exchange.facts.model,
    }
    transcript = exchange.transcript
    if transcript is not None:
        reasons = [r for r in transcript.finish_reasons if r]
        found |= {
            "gen_ai.response.id": transcript.response_id,
            "gen_ai.response.model": transcript.response_model,
            "gen_ai.response.finish_reasons": reasons or None,
            "gen_ai.usage.input_tokens": transcript.usage.input_tokens,
            "gen_ai.usage.output_tokens": transcript.usage.output_tokens,
        }
    return found


def _context(fields: Fields) -> Iterator[tuple[str, str]]:
    for name, value in fields:
        text = name.decode("latin-1")
        if text in _CONTEXT:
            yield text, value.decode("latin-1")
