"""What holds in every dialect, on the whole data path."""

import json
from pathlib import Path

import pytest
from fakes.answers import SPOKEN
from fakes.gateway import running_gateway
from fakes.upstream import RESET, Answer, chunk, head, json_answer, sse

from attest.delivery import split_stream
from attest.digests import digest
from gateway.dialects import error_body
from gateway.errors import OverloadedError, RequestError

VECTORS = Path(__file__).parents[2] / "vectors" / "vllm-0.32"


@pytest.fixture(params=SPOKEN)
def spoken(request):
    return SPOKEN[request.param]


async def ask(gateway, spoken, *, headers=None, **members):
    return await gateway.chat(
        spoken.request(**members), path=spoken.path, headers=headers
    )


async def test_body(gateway, spoken):
    gateway.engine.answer(json_answer(spoken.body("Hello.")))
    response = await ask(gateway, spoken)
    assert response.content == spoken.body("Hello.")
    claims = await gateway.verify(response)
    assert claims["res"]["choices"] == 1
    assert claims["gen_ai.response.model"] == "tiny"
    assert gateway.engine.requests[0].path == spoken.path


async def test_stream(gateway, spoken):
    events = spoken.events("Hello.")
    gateway.engine.answer(sse(*events))
    response = await ask(gateway, spoken, stream=True)
    covered, token = split_stream(response.content)
    assert covered == b"".join(events)
    assert response.content.endswith(f": attestation {token}\n\n".encode() + events[-1])
    await gateway.verify(response)


async def test_body_and_stream_have_one_output(gateway, spoken):
    outputs = []
    for answer in (json_answer(spoken.body("Hi")), sse(*spoken.events("Hi"))):
        gateway.engine.answer(answer)
        await ask(gateway, spoken)
        outputs.append(gateway.exchange.transcript.outputs())
    assert outputs[0] == outputs[1]
    assert "Hi" in outputs[0][0].values()


async def test_terminal_event_alone_is_held_back(gateway, spoken):
    *events, last = spoken.events("Hello.")
    gateway.engine.answer(sse(*events, last + b": more\n\n" + events[0]))
    response = await ask(gateway, spoken, stream=True)
    assert split_stream(response.content)[0] == b"".join([*events, last])
    await gateway.verify(response)


async def test_crlf(gateway, spoken):
    stream = b"".join(spoken.events("Hello.")).replace(b"\n", b"\r\n")
    gateway.engine.answer(sse(stream))
    response = await ask(gateway, spoken, stream=True)
    assert split_stream(response.content)[0] == stream
    await gateway.verify(response)


async def test_one_byte_in_a_write(gateway, spoken):
    stream = b"".join(spoken.events("na\u00efve \U0001f600", ascii_only=False))
    gateway.engine.answer(sse(*(stream[i : i + 1] for i in range(len(stream)))))
    response = await ask(gateway, spoken, stream=True)
    assert split_stream(response.content)[0] == stream
    await gateway.verify(response)
    assert "na\u00efve \U0001f600" in gateway.exchange.transcript.outputs()[0].values()


async def test_stream_without_its_end_is_truncated(gateway, spoken):
    events = spoken.events("Hello.")[:-2]
    gateway.engine.answer(sse(*events))
    response = await ask(gateway, spoken, stream=True)
    await gateway.verify(response, outcomes=["truncated"])


async def test_engine_that_dies_in_a_stream(gateway, spoken):
    first = spoken.events("Hello.")[0]
    gateway.engine.answer(Answer([head(), chunk(first), RESET]))
    with pytest.raises(Exception, match="peer closed connection"):
        await ask(gateway, spoken, stream=True)
    assert str(gateway.exchange.outcome) == "upstream_error"
    assert gateway.exchange.content_digest == digest(first)


async def test_end_without_a_reason_is_incomplete(gateway, spoken):
    events = spoken.events("Hello.")
    done = b"data: [DONE]\n\n"
    gateway.engine.answer(sse(*events[:-2], done))
    response = await ask(gateway, spoken, stream=True)
    await gateway.verify(response, outcomes=["incomplete"])


async def test_no_comment_where_the_client_wants_none(gateway, spoken):
    events = spoken.events("Hello.")
    gateway.engine.answer(sse(*events))
    response = await ask(
        gateway, spoken, stream=True, headers={"attestation-delivery": "none"}
    )
    assert response.content == b"".join(events)
    await gateway.verify(response)


@pytest.mark.parametrize("body", [b"<html>", b"", b"{}", b"[]"])
async def test_body_of_another_kind_is_malformed(gateway, spoken, body):
    gateway.engine.answer(json_answer(body))
    response = await ask(gateway, spoken)
    assert response.content == body
    await gateway.verify(response, outcomes=["upstream_malformed"])


async def test_body_of_another_dialect_is_malformed(gateway, spoken):
    other = SPOKEN["messages" if spoken is SPOKEN["chat"] else "chat"]
    if spoken is SPOKEN["completions"]:
        other = SPOKEN["responses"]
    gateway.engine.answer(json_answer(other.body("Hello.")))
    response = await ask(gateway, spoken)
    await gateway.verify(response, outcomes=["upstream_malformed"])


# Errors.


def message_of(spoken, response):
    value = response.json()
    if spoken is SPOKEN["messages"]:
        assert value["type"] == "error"
        assert value["request_id"] == response.headers["x-request-id"]
    else:
        assert value["error"]["code"] == response.status_code
    return value["error"]["message"]


async def test_error_has_the_dialects_shape(gateway, spoken):
    response = await gateway.chat(b"{", path=spoken.path)
    assert response.status_code == 400
    assert "JSON" in message_of(spoken, response)
    await gateway.verify(response, outcomes=["refused"])


async def test_unattested_error_has_the_dialects_shape(gateway, spoken):
    response = await gateway.client.get(spoken.path)
    assert response.status_code == 405
    assert message_of(spoken, response)


async def test_key_in_either_header(tmp_path, spoken):
    known = bytes.fromhex(digest(b"secret")[7:])
    async with running_gateway(tmp_path, api_keys=[known]) as gateway:
        gateway.engine.answer(json_answer(spoken.body("Hello.")))
        for fields in ({}, {"x-api-key": "wrong"}, {"x-api-key": ""}):
            response = await ask(gateway, spoken, headers=fields)
            assert response.status_code == 401
            assert message_of(spoken, response)
        for fields in ({"x-api-key": "secret"}, {"authorization": "Bearer secret"}):
            response = await ask(gateway, spoken, headers=fields)
            assert response.status_code == 200
        assert "x-api-key" not in gateway.engine.requests[0].headers


async def test_two_keys_are_none(tmp_path):
    known = bytes.fromhex(digest(b"secret")[7:])
    async with running_gateway(tmp_path, api_keys=[known]) as gateway:
        received = await gateway.raw(
            b"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: secret\r\n"
            b"x-api-key: other\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        )
    assert received.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RequestError("x"), "invalid_request_error"),
        (RequestError("x", status=413), "request_too_large"),
        (OverloadedError("x"), "rate_limit_error"),
        (OverloadedError("x", status=503), "overloaded_error"),
        (RequestError("x", status=500), "api_error"),
    ],
)
def test_words_of_anthropic_errors(error, kind):
    value = json.loads(error_body(error, "messages", request_id="r"))
    assert value == {
        "type": "error",
        "error": {"type": kind, "message": "x"},
        "request_id": "r",
    }


ERRORS = {
    "responses": b'event: error\ndata: {"type": "error", "message": "x"}\n\n',
    "messages": b'event: error\ndata: {"type": "error", "error": {"type": "e"}}\n\n',
}


@pytest.mark.parametrize("name", ERRORS)
async def test_error_event_comes_after_the_attestation(gateway, name):
    spoken, error = SPOKEN[name], ERRORS[name]
    first = spoken.events("Hello.")[0]
    gateway.engine.answer(sse(first, error))
    response = await ask(gateway, spoken, stream=True)
    assert split_stream(response.content)[0] == first + error
    assert response.content.endswith(b"\n\n" + error)
    await gateway.verify(response, outcomes=["upstream_error"])


@pytest.mark.parametrize("last", ["failed", "incomplete"])
async def test_other_ends_of_a_response(gateway, last):
    spoken = SPOKEN["responses"]
    *events, _ = spoken.events("Hello.")
    response = {**spoken.whole("Hello."), "status": last, "error": None}
    if last == "failed":
        response["error"] = {"code": "server_error", "message": "x"}
    end = spoken.event({"type": f"response.{last}", "response": response})
    gateway.engine.answer(sse(*events, end, events[0]))
    answer = await ask(gateway, spoken, stream=True)
    assert split_stream(answer.content)[0] == b"".join([*events, end])
    outcome = {"failed": "upstream_error", "incomplete": "incomplete"}[last]
    await gateway.verify(answer, outcomes=[outcome])


# Recorded answers.


@pytest.mark.parametrize("name", ["responses", "messages"])
async def test_recorded_body(gateway, name):
    body = (VECTORS / f"{name}.response.json").read_bytes()
    gateway.engine.answer(json_answer(body))
    response = await ask(gateway, SPOKEN[name])
    assert response.content == body
    claims = await gateway.verify(response)
    assert claims["gen_ai.usage.input_tokens"] == 18


@pytest.mark.parametrize("name", ["responses", "messages"])
async def test_recorded_stream(gateway, name):
    stream = (VECTORS / f"{name}_stream.response.sse").read_bytes()
    gateway.engine.answer(sse(stream))
    response = await ask(gateway, SPOKEN[name], stream=True)
    assert split_stream(response.content)[0] == stream
    claims = await gateway.verify(response)
    assert claims["gen_ai.usage.output_tokens"] == 3
