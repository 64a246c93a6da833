"""Speech: a form goes in, text comes out. The engine is the scripted one, which says
what a good one rarely does; `integration/test_audio.py` has a real one.
"""

import json

import httpx2
import pytest
from fakes.answers import plain_event
from fakes.gateway import running_gateway
from fakes.upstream import json_answer, sse
from hypothesis import given
from hypothesis import strategies as st

from attest.delivery import split_stream
from attest.dialects import Dialect
from attest.digests import digest
from attest.errors import FormatError
from attest.request import request_facts
from attest.sse import EventSplitter
from attest.transcript import Transcript
from gateway.policy import Rules

PATHS = ("/v1/audio/transcriptions", "/v1/audio/translations")
SOUND = b"RIFF\x00\xff\r\n--not-the-boundary\r\nWAVE"
BODY = json.dumps({"text": "Hello.", "usage": {"type": "duration", "seconds": 1}})
DONE = b"data: [DONE]\n\n"


@pytest.fixture(params=PATHS)
def path(request):
    return request.param


async def ask(gateway, path=PATHS[0], *, headers=None, sound=SOUND, **fields):
    request = gateway.client.build_request(
        "POST",
        path,
        data={"model": "tiny", **fields},
        files={"file": ("a.wav", sound, "audio/wav")},
        headers=headers,
    )
    await request.aread()
    return await gateway.client.send(request)


def chunk(text, reason=None):
    choice = {"delta": {"content": text}}
    if reason is not None:
        choice["finish_reason"] = reason
    return plain_event(
        {
            "id": "trsc-1",
            "object": "transcription.chunk",
            "model": "tiny",
            "choices": [choice],
        }
    )


async def test_body(gateway, path):
    gateway.engine.answer(json_answer(BODY.encode()))
    response = await ask(gateway, path, language="en")
    assert response.content == BODY.encode()
    claims = await gateway.verify(response)
    assert claims["gen_ai.request.model"] == "tiny"
    assert gateway.exchange.transcript.outputs() == ({"index": 0, "text": "Hello."},)


async def test_form_reaches_the_engine_byte_for_byte(gateway, path):
    gateway.engine.answer(json_answer(BODY.encode()))
    response = await ask(gateway, path, prompt="na\u00efve")
    (request,) = gateway.engine.requests
    assert (request.path, request.body) == (path, response.request.content)
    boundary = response.request.headers["content-type"].partition("boundary=")[2]
    expected = f'multipart/form-data; boundary="{boundary}"'
    assert request.headers["content-type"] == expected


async def test_recording_is_committed_whatever_its_envelope(gateway):
    gateway.engine.answer(json_answer(BODY.encode()))
    digests = []
    for _ in range(2):
        response = await ask(gateway, language="en", temperature="0.5")
        verdict = await gateway.verdict(response)
        digests.append(verdict.disclosed["request.semantic_digest"])
        sampling = verdict.disclosed["request.sampling"]
        assert sampling == {"temperature": '"0.5"'}
    assert digests[0] == digests[1]
    expected = {"file": digest(SOUND), "language": "en"}
    assert gateway.exchange.facts.semantic == expected


async def test_stream(gateway, path):
    events = [chunk("He"), chunk("llo.", "stop"), DONE]
    gateway.engine.answer(sse(*events))
    response = await ask(gateway, path, stream="true")
    covered, token = split_stream(response.content)
    assert covered == b"".join(events)
    assert response.content.endswith(f": attestation {token}\n\n".encode() + DONE)
    await gateway.verify(response)
    assert gateway.exchange.facts.stream is True
    assert gateway.exchange.transcript.outputs() == ({"index": 0, "text": "Hello."},)


@pytest.mark.parametrize(
    ("events", "outcome"),
    [
        ([chunk("a", "stop"), chunk(" b", "stop"), DONE], "complete"),
        ([chunk("a", "length"), chunk(" b", "stop"), DONE], "complete"),
        ([chunk("a", "stop"), chunk(" b", "abort"), DONE], "incomplete"),
        ([chunk("a", "abort"), chunk(" b", "stop"), DONE], "incomplete"),
        ([chunk("a"), DONE], "incomplete"),
        ([chunk("a", "stop")], "truncated"),
        ([chunk("a")], "truncated"),
        ([plain_event({"error": {"message": "x"}}), DONE], "upstream_error"),
        ([plain_event({"choices": ["x"]}), DONE], "upstream_malformed"),
        ([plain_event({"text": "a"}), DONE], "upstream_malformed"),
    ],
)
async def test_how_a_stream_ended(gateway, events, outcome):
    gateway.engine.answer(sse(*events))
    await gateway.verify(await ask(gateway, stream="true"), outcomes=[outcome])


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"text": 1}', b"Hello."])
async def test_body_of_another_kind_is_malformed(gateway, body):
    gateway.engine.answer(json_answer(body))
    await gateway.verify(await ask(gateway), outcomes=["upstream_malformed"])


def test_text_that_utf_8_cannot_carry_is_left_out():
    transcript = Transcript(Dialect.AUDIO)
    transcript.feed_body(b'{"text": "\\ud800"}')
    assert transcript.unattestable == (0,)


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=9), max_size=6))
def test_any_stream_of_a_text_equals_its_body(parts):
    body, stream = Transcript(Dialect.AUDIO), Transcript(Dialect.AUDIO)
    body.feed_body(json.dumps({"text": "".join(parts)}).encode())
    events = [*map(chunk, parts), chunk("", "stop"), DONE]
    for event in EventSplitter().feed(b"".join(events)):
        stream.feed_event(event)
    stream.end()
    assert body.outputs() == stream.outputs()
    assert body.outcome() == stream.outcome() == "complete"


@pytest.mark.parametrize("fields", [{}, {"file": "x", "n": "2"}])
def test_unusable_request(fields):
    with pytest.raises(FormatError, match=r"^(file|n): "):
        request_facts(fields, Dialect.AUDIO)


async def test_refusals_are_attested(gateway):
    for fields, status in (
        ({"model": "nope"}, 404),
        ({"vllm_xargs": '{"a": 1}'}, 400),
        ({"stream": "yes"}, 400),
        ({"n": "2"}, 400),
    ):
        response = await ask(gateway, **fields)
        assert response.status_code == status
        await gateway.verify(response, outcomes=["refused"])
    assert gateway.engine.requests == []


async def test_rules_for_talking_do_not_bind_speech(tmp_path):
    async with running_gateway(
        tmp_path, rules=Rules(system_prompt="require")
    ) as gateway:
        gateway.engine.answer(json_answer(BODY.encode()))
        assert (await ask(gateway)).status_code == 200


@pytest.mark.parametrize(
    "fields",
    [
        {"content-type": "application/json"},
        {"content-type": "multipart/form-data"},
        {"content-encoding": "gzip"},
    ],
)
async def test_body_of_another_kind_is_not_read(gateway, fields):
    response = await ask(gateway, headers=fields)
    assert response.status_code == 415
    assert gateway.attester.exchanges == []


async def test_form_of_a_web_page_is_not_taken(gateway):
    response = await ask(gateway, headers={"origin": "http://evil.example"})
    assert response.status_code == 403
    assert gateway.engine.requests == []


async def test_boundary_of_another_header(gateway):
    """One body under two boundaries would be two forms with one digest."""
    gateway.engine.answer(json_answer(BODY.encode()))
    # A name of our own: a random one that begins with b would end the outer form too.
    kind = {"content-type": "multipart/form-data; boundary=inner"}
    files = {"file": ("a", SOUND)}
    made = httpx2.Request("POST", "http://x", files=files, headers=kind)
    inner = made.read()
    outer = b'--b\r\ncontent-disposition: form-data; name="file"; filename="b"\r\n\r\n'
    body = outer + inner + b"\r\n--b--\r\n"
    for name, status in (("b", 200), ("inner", 400)):
        kind = {"content-type": f"multipart/form-data; boundary={name}"}
        response = await gateway.client.post(PATHS[0], content=body, headers=kind)
        assert response.status_code == status


async def test_large_recording(gateway):
    gateway.engine.answer(json_answer(BODY.encode()))
    response = await ask(gateway, sound=SOUND * 20_000)
    await gateway.verify(response)
