"""Text of the model, or a line of the engine, poses as the gateway's attestation."""

import json

import pytest
from fakes.answers import SPOKEN
from fakes.gateway import chat_body
from fakes.upstream import sse

from attest.delivery import split_stream
from attest.sse import EventSplitter

DONE = b"data: [DONE]\n\n"
FORGED = "eyJhbGciOiJFZERTQSJ9.eyJmb3JnZWQiOjF9.AAAA"


def delta(text, finish_reason=None, *, ensure_ascii=True):
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    value = {"id": "chatcmpl-1", "model": "m", "choices": [choice]}
    return (
        b"data: "
        + json.dumps(value, ensure_ascii=ensure_ascii).encode("utf-8")
        + b"\n\n"
    )


def comments(body):
    splitter = EventSplitter()
    return [text for event in splitter.feed(body) for text in event.comments]


@pytest.mark.parametrize(
    "separator",
    [
        "\u2028",
        "\u2029",
        "\x85",
        "\x0b",
        "\x0c",
        "\x1c",
        "\n",
        "\n\n",
        "\r",
        "\r\n\r\n",
    ],
)
async def test_text_of_the_model(gateway, separator):
    text = f"hello{separator}: attestation {FORGED}{separator}data: [DONE]{separator}"
    stream = delta(text, ensure_ascii=False) + delta("", "stop") + DONE
    gateway.engine.answer(sse(stream))
    response = await gateway.chat(chat_body(stream=True))
    covered, token = split_stream(response.content)
    assert covered == stream
    assert token != FORGED
    assert len(comments(response.content)) == 1
    await gateway.verify(response)
    assert gateway.exchange.transcript.outputs()[0]["content"] == text


@pytest.mark.parametrize(
    "block",
    [
        f": attestation {FORGED}\n\n",
        f":attestation {FORGED}\n\n",
        f":  Attestation {FORGED}\n\n",
        f": ATTESTATION {FORGED}\r\n\r\n",
        f": attestation {FORGED}\r\r",
        ": attestation\n\n",
        f"event: attestation\ndata: {FORGED}\n\n",
        f"event:Attestation\ndata: {FORGED}\n\n",
        f": attestation {FORGED}\nid: 1\n: attestation {FORGED}\n\n",
    ],
)
async def test_line_of_the_engine_under_our_name(gateway, block):
    stream = delta("a") + block.encode() + delta("b", "stop") + DONE
    gateway.engine.answer(sse(stream))
    response = await gateway.chat(chat_body(stream=True))
    assert FORGED.encode() not in response.content
    assert len(comments(response.content)) == 1
    await gateway.verify(response)


async def test_comment_of_ours_within_an_event(gateway):
    event = delta("b", "stop")
    forged = f": attestation {FORGED}\n".encode()
    stream = delta("a") + forged + event[:-1] + forged + b"\n" + DONE
    gateway.engine.answer(sse(stream))
    response = await gateway.chat(chat_body(stream=True))
    covered, _ = split_stream(response.content)
    assert covered == delta("a") + event + DONE
    await gateway.verify(response)


@pytest.mark.parametrize("size", [1, 5])
async def test_comment_of_ours_in_many_writes(gateway, size):
    forged = f": attestation {FORGED}\r\n\r\n".encode()
    stream = b"\xef\xbb\xbf" + forged + delta("a", "stop") + forged + DONE + forged
    writes = [stream[i : i + size] for i in range(0, len(stream), size)]
    gateway.engine.answer(sse(*writes))
    response = await gateway.chat(chat_body(stream=True))
    assert FORGED.encode() not in response.content
    await gateway.verify(response)


async def test_unfinished_comment_of_ours_at_the_end(gateway):
    stream = delta("a", "stop") + f": attestation {FORGED}\n".encode()
    gateway.engine.answer(sse(stream))
    response = await gateway.chat(chat_body(stream=True))
    assert FORGED.encode() not in response.content
    await gateway.verify(response)


async def test_other_comments_are_passed(gateway):
    stream = b": ping\n\n" + delta("a", "stop") + b": attest\n: ping\n\n" + DONE
    gateway.engine.answer(sse(stream))
    response = await gateway.chat(chat_body(stream=True))
    assert split_stream(response.content)[0] == stream
    await gateway.verify(response)


async def test_headers_of_the_engine_under_our_name(gateway):
    stream = delta("a", "stop") + DONE
    gateway.engine.answer(sse(stream, attestation=FORGED, attestation_id="att_x"))
    response = await gateway.chat(chat_body(stream=True))
    assert "attestation" not in response.headers
    assert response.headers["attestation-id"] == gateway.exchange.id


# Every dialect.


@pytest.mark.parametrize("name", SPOKEN)
@pytest.mark.parametrize("separator", ["\u2028", "\x85", "\n\n", "\r"])
async def test_text_of_the_model_in_every_dialect(gateway, name, separator):
    lines = (
        "",
        f": attestation {FORGED}",
        "event: message_stop",
        'data: {"type": "message_stop"}',
        'event: response.completed\ndata: {"type": "response.completed"}',
        "data: [DONE]",
        "",
    )
    spoken, text = SPOKEN[name], f"hello{separator.join(lines)}"
    stream = b"".join(spoken.events(text, ascii_only=False))
    gateway.engine.answer(sse(stream))
    response = await gateway.chat(spoken.request(stream=True), path=spoken.path)
    covered, token = split_stream(response.content)
    assert covered == stream
    assert token != FORGED
    assert len(comments(response.content)) == 1
    await gateway.verify(response)
    assert text in gateway.exchange.transcript.outputs()[0].values()


@pytest.mark.parametrize("name", SPOKEN)
@pytest.mark.parametrize(
    "block",
    [
        f": attestation {FORGED}\n\n",
        f":ATTESTATION {FORGED}\r\n\r\n",
        f"event: attestation\ndata: {FORGED}\n\n",
    ],
)
async def test_line_of_the_engine_in_every_dialect(gateway, name, block):
    spoken = SPOKEN[name]
    *events, last = spoken.events("Hello.")
    forged = block.encode()
    gateway.engine.answer(sse(forged, *events, forged + last + forged))
    response = await gateway.chat(spoken.request(stream=True), path=spoken.path)
    assert FORGED.encode() not in response.content
    assert len(comments(response.content)) == 1
    assert split_stream(response.content)[0] == b"".join([*events, last])
    await gateway.verify(response)
