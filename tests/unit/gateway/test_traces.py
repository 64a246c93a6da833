"""Spans of requests, through the real SDK and an exporter in memory."""

import asyncio
import json

import pytest
from fakes.answers import SPOKEN
from fakes.gateway import chat_body, eventually, running_gateway
from fakes.upstream import (
    CLOSE,
    HANG,
    Answer,
    abort_with_reset,
    chunk,
    head,
    json_answer,
    sse,
)
from fakes.world import ANSWER, TEXT
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from gateway.traces import NO_TRACES, OtelTraces, open_traces

SECRET = "the-secret-question"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
async def gateway(tmp_path, exporter):
    async with running_gateway(tmp_path) as running:
        running.state.traces = OtelTraces(SimpleSpanProcessor(exporter), "urn:test")
        yield running
        running.state.traces.close()


async def test_span_of_an_answer_has_the_names_of_the_genai_conventions(
    gateway, exporter
):
    gateway.engine.answer(json_answer(ANSWER))
    response = await gateway.chat()
    [span] = exporter.get_finished_spans()
    assert span.name == "chat tiny"
    assert {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "tiny",
        "gen_ai.response.model": "tiny",
        "gen_ai.usage.input_tokens": 21,
        "gen_ai.usage.output_tokens": 7,
        "http.response.status_code": 200,
        "http.route": "/v1/chat/completions",
        "attest.outcome": "complete",
        "attest.id": response.headers["attestation-id"],
    }.items() <= dict(span.attributes).items()
    assert span.resource.attributes["service.instance.id"] == "urn:test"


async def test_engine_continues_our_span_and_ours_the_clients(gateway, exporter):
    gateway.engine.answer(json_answer(ANSWER))
    await gateway.chat(headers={"traceparent": PARENT, "tracestate": "a=b"})
    [span] = exporter.get_finished_spans()
    assert f"{span.context.trace_id:032x}" == PARENT[3:35]
    assert f"{span.parent.span_id:016x}" == PARENT[36:52]
    sent = gateway.engine.requests[0].headers["traceparent"]
    assert sent == f"00-{PARENT[3:35]}-{span.context.span_id:016x}-01"


async def test_broken_context_of_a_client_starts_a_trace_of_its_own(gateway, exporter):
    gateway.engine.answer(json_answer(ANSWER))
    await gateway.chat(headers={"traceparent": "00-zzz"})
    [span] = exporter.get_finished_spans()
    assert span.parent is None


async def test_no_text_of_question_or_answer_is_exported(gateway, exporter):
    gateway.engine.answer(json_answer(ANSWER))
    messages = [
        {"role": "system", "content": SECRET},
        {"role": "user", "content": SECRET},
    ]
    await gateway.chat(
        chat_body(messages=messages), headers={"authorization": f"Bearer {SECRET}"}
    )
    exported = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert json.loads(exported)
    assert SECRET not in exported
    assert TEXT not in exported


async def test_engine_that_broke_off_is_an_error(gateway, exporter):
    gateway.engine.answer(Answer([CLOSE]))
    await gateway.chat()
    [span] = exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR


async def test_refusal_is_a_span_too(gateway, exporter):
    response = await gateway.client.post("/v1/chat/completions", content=b"{")
    [span] = exporter.get_finished_spans()
    assert span.attributes["http.response.status_code"] == response.status_code


def test_without_an_endpoint_there_are_none():
    assert open_traces("", "urn:test") is NO_TRACES


async def test_without_traces_the_clients_context_reaches_the_engine(gateway):
    gateway.state.traces = NO_TRACES
    gateway.engine.answer(json_answer(ANSWER))
    await gateway.chat(headers={"traceparent": PARENT})
    assert gateway.engine.requests[0].headers["traceparent"] == PARENT


def test_endpoint_opens_an_exporter_that_drops_what_it_cannot_send():
    traces = open_traces("http://127.0.0.1:1/v1/traces", "urn:test")
    traces.close()


@pytest.mark.parametrize("after", ["two chunks", "all"])
async def test_client_that_leaves_is_recorded_as_without_traces(
    gateway, exporter, after
):
    events = SPOKEN["chat"].events(TEXT)
    two = Answer([head(), *map(chunk, events[:2]), HANG])
    gateway.engine.answer(two if after == "two chunks" else sse(*events))
    body = json.dumps(chat_body(stream=True)).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
        b"content-type: application/json\r\n"
        + f"content-length: {len(body)}\r\n\r\n".encode()
        + body
    )
    received, last = b"", events[1] if after == "two chunks" else events[-1]
    while last not in received:
        received += await reader.read(65536)
    abort_with_reset(writer)
    if after == "two chunks":
        await asyncio.wait_for(gateway.engine.all_closed.wait(), 5)
    exchange = await gateway.wait_sealed()
    await eventually(exporter.get_finished_spans)
    outcome = "complete" if after == "all" else "client_disconnected"
    assert (await gateway.claims(exchange.id))["res"]["outcome"] == outcome
    [span] = exporter.get_finished_spans()
    assert span.attributes["attest.outcome"] == outcome
