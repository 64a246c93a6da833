"""Spans of requests, through the real SDK and an exporter in memory."""

import json

import pytest
from fakes.gateway import chat_body, running_gateway
from fakes.upstream import CLOSE, Answer, json_answer
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
