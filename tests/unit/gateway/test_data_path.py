"""Requests through the whole data path: real sockets, attester, store and verifier."""

import asyncio
import gzip
import json
import threading
from pathlib import Path

import httpx2
import pytest
from fakes.gateway import COMPLETIONS, chat_body, eventually, running_gateway
from fakes.upstream import (
    CLOSE,
    HANG,
    LAST,
    RESET,
    Answer,
    abort_with_reset,
    chunk,
    gzipped,
    head,
    json_answer,
    sse,
)

from attest.delivery import split_stream
from attest.digests import digest
from attest.transcript import Transcript
from gateway.call import LARGE
from gateway.errors import StoreError
from gateway.settings import LimitSettings

VECTORS = Path(__file__).parents[2] / "vectors" / "vllm-0.32"
BODY = (VECTORS / "chat.response.json").read_bytes()
STREAM = (VECTORS / "chat_stream.response.sse").read_bytes()
EVENTS = [event + b"\n\n" for event in STREAM.split(b"\n\n")[:-1]]
DONE = b"data: [DONE]\n\n"
FINISH = EVENTS[-2]
HTML = b"<html><h1>502</h1></html>"


def error_of(response):
    return response.json()["error"]


# Answers in one body.


async def test_json_answer(gateway):
    gateway.engine.answer(json_answer(BODY))
    response = await gateway.chat()
    assert response.status_code == 200
    assert response.content == BODY
    assert response.headers["content-type"] == "application/json"
    assert response.headers["attestation"]
    claims = await gateway.verify(response)
    assert claims["res"] == {
        "status": 200,
        "content_digest": digest(BODY),
        "content_bytes": len(BODY),
        "stream": False,
        "outcome": "complete",
        "choices": 1,
    }
    assert claims["gen_ai.response.finish_reasons"] == ["length"]


async def test_body_with_odd_spelling_is_passed_byte_for_byte(gateway):
    body = b'{ "choices" : [ {"index":0,"message":{"content":"\\u00e9"},\r\n'
    body += b'"finish_reason":"stop"} ], "x": 1.0, "y": 1e-7 }\n'
    gateway.engine.answer(json_answer(body))
    response = await gateway.chat()
    assert response.content == body
    await gateway.verify(response)


async def test_completions(gateway):
    body = (VECTORS / "completion.response.json").read_bytes()
    gateway.engine.answer(json_answer(body))
    response = await gateway.chat({"model": "tiny", "prompt": "a"}, path=COMPLETIONS)
    assert response.content == body
    await gateway.verify(response)
    assert gateway.engine.requests[0].path == COMPLETIONS


async def test_request_reaches_the_engine_byte_for_byte(gateway):
    """And one question in two spellings is two requests, each with its own digest."""
    gateway.engine.answer(json_answer(BODY))
    found, one = [], b'{"messages":[{"content":"\\u00e9","role":"user"}],"min_p":1e-7}'
    members = reversed(json.loads(one).items())
    other = json.dumps(dict(members), indent=2).encode() + b"\n"
    for sent in (one, other):
        response = await gateway.chat(sent)
        assert gateway.engine.requests[-1].body == sent
        verdict = await gateway.verdict(response)
        assert verdict.proven
        assert verdict.disclosed["request.digest"] == digest(sent)
        assert "request.forwarded_digest" not in verdict.disclosed
        found.append(verdict.disclosed)
    assert found[0]["request.digest"] != found[1]["request.digest"]
    assert found[0]["request.semantic_digest"] == found[1]["request.semantic_digest"]


async def test_only_listed_headers_reach_the_engine(gateway):
    gateway.engine.answer(json_answer(BODY))
    await gateway.chat(
        headers={
            "authorization": "Bearer secret",
            "cookie": "a=b",
            "x-forwarded-for": "1.2.3.4",
            "attestation-id": "att_forged",
            "x-real-ip": "1.2.3.4",
            "accept-encoding": "gzip, br",
            "x-request-id": "my-req-1",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        }
    )
    assert gateway.engine.requests[0].headers == {
        "host": "engine",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "content-length": str(len(gateway.engine.requests[0].body)),
        "x-request-id": "my-req-1",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }


async def test_only_listed_headers_reach_the_client(gateway):
    gateway.engine.answer(
        json_answer(
            BODY,
            attestation="forged",
            attestation_id="forged",
            set_cookie="a=b",
            server="uvicorn",
            x_request_id="of-the-engine",
        )
    )
    response = await gateway.chat(headers={"x-request-id": "mine"})
    assert set(response.headers) - {"date", "server"} == {
        "attestation",
        "attestation-id",
        "content-length",
        "content-type",
        "x-request-id",
    }
    assert response.headers["x-request-id"] == "mine"
    assert response.headers.get_list("attestation-id") == [gateway.exchange.id]


async def test_request_id_is_made_where_the_client_sends_none(gateway):
    gateway.engine.answer(json_answer(BODY))
    response = await gateway.chat()
    made = response.headers["x-request-id"]
    assert len(made) == 32
    assert gateway.engine.requests[0].headers["x-request-id"] == made


async def test_nonce_is_in_the_token(gateway):
    gateway.engine.answer(json_answer(BODY))
    response = await gateway.chat(headers={"attestation-nonce": "0123456789abcdef"})
    claims = await gateway.verify(response)
    assert claims["eat_nonce"] == "0123456789abcdef"


async def test_token_too_long_for_a_header_is_fetched_by_id(gateway):
    value = json.loads(BODY)
    choice = value["choices"][0]
    value["choices"] = [{**choice, "index": index} for index in range(40)]
    gateway.engine.answer(json_answer(json.dumps(value).encode()))
    response = await gateway.chat(chat_body(n=40))
    assert "attestation" not in response.headers
    claims = await gateway.verify(response)
    assert claims["res"]["choices"] == 40


async def test_compressed_answer_is_decoded(gateway):
    gateway.engine.answer(gzipped(BODY))
    response = await gateway.chat()
    assert response.content == BODY
    assert "content-encoding" not in response.headers
    await gateway.verify(response)


async def test_content_coding_that_was_not_asked_for_is_refused(gateway):
    gateway.engine.answer(json_answer(BODY, content_encoding="br"))
    response = await gateway.chat()
    assert response.status_code == 502
    assert "content coding" in error_of(response)["message"]
    await gateway.verify(response, outcomes=["upstream_error"])


@pytest.mark.parametrize("body", [HTML, b""])
async def test_answer_of_another_kind_is_passed_and_attested(gateway, body):
    gateway.engine.answer(json_answer(body, kind="text/html"))
    response = await gateway.chat()
    assert (response.status_code, response.content) == (200, body)
    assert response.headers["content-type"] == "text/html"
    await gateway.verify(response, outcomes=["upstream_malformed"])


async def test_error_of_the_engine_is_passed_and_attested(gateway):
    body = (VECTORS / "chat_bad_model.response.json").read_bytes()
    gateway.engine.answer(json_answer(body, 404))
    response = await gateway.chat()
    assert (response.status_code, response.content) == (404, body)
    claims = await gateway.verify(response, outcomes=["refused"])
    assert claims["res"]["status"] == 404


@pytest.mark.parametrize(
    ("status", "outcome"), [(400, "refused"), (503, "refused"), (500, "upstream_error")]
)
async def test_status_tells_a_refusal_from_a_failure(gateway, status, outcome):
    gateway.engine.answer(json_answer(b'{"error":{"message":"x"}}', status))
    response = await gateway.chat()
    assert response.status_code == status
    await gateway.verify(response, outcomes=[outcome])


async def test_retry_after_of_the_engine_is_passed(gateway):
    gateway.engine.answer(json_answer(b"{}", 429, retry_after="7"))
    assert (await gateway.chat()).headers["retry-after"] == "7"


async def test_body_cut_short_is_never_passed_as_whole(gateway):
    gateway.engine.answer(
        Answer(
            [head(kind="application/json", content_length=len(BODY)), BODY[:99], CLOSE]
        )
    )
    response = await gateway.chat()
    assert response.status_code == 502
    assert b"chatcmpl" not in response.content
    await gateway.verify(response, outcomes=["upstream_error"])


async def test_body_beyond_bounds_is_refused(gateway, monkeypatch):
    monkeypatch.setattr("gateway.call.MAX_BODY", 100)
    gateway.engine.answer(json_answer(BODY))
    response = await gateway.chat()
    assert response.status_code == 502
    assert "larger than 100 bytes" in error_of(response)["message"]


async def test_compressed_bomb_is_refused(gateway, monkeypatch):
    monkeypatch.setattr("gateway.call.MAX_BODY", 1_000_000)
    gateway.engine.answer(gzipped(b"\0" * 20_000_000))
    assert (await gateway.chat()).status_code == 502


async def test_large_answer_is_read_beside_the_event_loop(gateway, monkeypatch):
    threads, read = [], Transcript.feed_body
    monkeypatch.setattr(
        Transcript,
        "feed_body",
        lambda *args: threads.append(threading.current_thread()) or read(*args),
    )
    answer = json.loads(BODY)
    answer["padding"] = "x" * LARGE
    for body in (BODY, json.dumps(answer).encode()):
        gateway.engine.answer(json_answer(body))
        await gateway.verify(await gateway.chat())
    main = threading.main_thread()
    assert [thread is main for thread in threads] == [True, False]


async def test_large_request_body(gateway):
    gateway.engine.answer(json_answer(BODY))
    body = chat_body(user="x" * 300_000)
    response = await gateway.chat(body)
    await gateway.verify(response)


# An engine that is not there, or goes away.


async def test_engine_that_takes_no_connection(gateway):
    await gateway.engine.stop()
    response = await gateway.chat()
    assert response.status_code == 503
    assert response.headers["retry-after"] == "5"
    assert error_of(response)["code"] == 503
    await gateway.verify(response, outcomes=["refused"])


async def test_engine_that_ended(gateway):
    gateway.state.refuse_all("the engine has ended")
    response = await gateway.chat()
    assert response.status_code == 503
    await gateway.verify(response, outcomes=["refused"])
    assert gateway.engine.requests == []


@pytest.mark.parametrize("end", [RESET, CLOSE])
async def test_engine_that_goes_away_before_the_head(gateway, end):
    gateway.engine.answer(Answer([end]))
    response = await gateway.chat()
    assert response.status_code == 502
    assert len(gateway.engine.requests) == 1
    await gateway.verify(response, outcomes=["upstream_error"])


async def test_engine_that_does_not_speak_http(gateway):
    gateway.engine.answer(Answer([b"\x16\x03\x01 hello\r\n\r\n", CLOSE]))
    response = await gateway.chat()
    assert response.status_code == 502
    assert b"hello" not in response.content


async def test_engine_that_says_nothing(tmp_path):
    async with running_gateway(tmp_path, read_seconds=0.1) as gateway:
        gateway.engine.answer(Answer([HANG]))
        response = await gateway.chat()
        assert response.status_code == 504
        await gateway.verify(response, outcomes=["upstream_error"])


async def test_connection_that_died_idle_is_replaced(gateway):
    gateway.engine.answer(json_answer(BODY))
    assert (await gateway.chat()).status_code == 200
    # The engine takes the second request and closes without a byte.
    gateway.engine.answer(Answer([CLOSE]), json_answer(BODY))
    response = await gateway.chat()
    assert response.status_code == 200
    assert gateway.engine.connections == 2
    assert len(gateway.engine.requests) == 3


async def test_request_is_tried_again_only_once(gateway):
    gateway.engine.answer(json_answer(BODY))
    await gateway.chat()
    gateway.engine.answer(Answer([CLOSE]))
    assert (await gateway.chat()).status_code == 502
    assert len(gateway.engine.requests) == 3


async def test_connection_is_used_again(gateway):
    gateway.engine.answer(sse(STREAM), json_answer(BODY))
    for _ in range(4):
        await gateway.chat()
    assert gateway.engine.connections == 1


# Streams.


async def test_stream(gateway):
    gateway.engine.answer(sse(*EVENTS))
    response = await gateway.chat(chat_body(stream=True))
    covered, token = split_stream(response.content)
    assert covered == STREAM
    assert response.content.endswith(f": attestation {token}\n\n".encode() + DONE)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache, no-transform"
    assert response.headers["x-accel-buffering"] == "no"
    assert "attestation" not in response.headers
    claims = await gateway.verify(response)
    assert claims["res"]["stream"] is True
    assert claims["res"]["content_digest"] == digest(STREAM)
    assert claims["res"]["content_bytes"] == len(STREAM)


async def test_stream_and_body_commit_to_the_same_output(gateway):
    gateway.engine.answer(json_answer(BODY), sse(STREAM))
    await gateway.chat()
    await gateway.chat(chat_body(stream=True))
    one, other = (exchange.transcript for exchange in gateway.attester.exchanges)
    assert one.outputs() == other.outputs()


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_stream_in_any_writes(gateway, size):
    writes = [STREAM[i : i + size] for i in range(0, len(STREAM), size)]
    gateway.engine.answer(sse(*writes))
    response = await gateway.chat(chat_body(stream=True))
    assert split_stream(response.content)[0] == STREAM
    await gateway.verify(response)


async def test_events_go_out_before_the_stream_ends(gateway):
    go_on = asyncio.Event()
    gateway.engine.answer(
        Answer([head(), chunk(EVENTS[0]), go_on, chunk(b"".join(EVENTS[1:])), LAST])
    )
    async with gateway.client.stream(
        "POST",
        "/v1/chat/completions",
        json=chat_body(stream=True),
    ) as response:
        attestation_id = response.headers["attestation-id"]
        assert gateway.attester.is_open(attestation_id)
        chunks = response.aiter_raw()
        assert await anext(chunks) == EVENTS[0]
        go_on.set()
        rest = b"".join([piece async for piece in chunks])
    assert rest.endswith(DONE)
    assert not gateway.attester.is_open(attestation_id)


async def test_comment_is_left_out_on_demand(gateway):
    gateway.engine.answer(sse(STREAM))
    response = await gateway.chat(
        chat_body(stream=True), headers={"attestation-delivery": "none"}
    )
    assert response.content == STREAM
    await gateway.verify(response)


async def test_compressed_stream_is_decoded(gateway):
    gateway.engine.answer(sse(gzip.compress(STREAM), content_encoding="gzip"))
    response = await gateway.chat(chat_body(stream=True))
    assert split_stream(response.content)[0] == STREAM
    await gateway.verify(response)


async def test_request_for_a_stream_that_gets_a_body(gateway):
    body = (VECTORS / "chat_bad_model.response.json").read_bytes()
    gateway.engine.answer(json_answer(body, 404))
    response = await gateway.chat(chat_body(stream=True))
    assert (response.status_code, response.content) == (404, body)
    claims = await gateway.verify(response, outcomes=["refused"])
    assert claims["res"]["stream"] is False


async def test_html_in_place_of_a_stream(gateway):
    gateway.engine.answer(json_answer(HTML, kind="text/html"))
    response = await gateway.chat(chat_body(stream=True))
    assert response.content == HTML
    await gateway.verify(response, outcomes=["upstream_malformed"])


async def test_nothing_in_place_of_a_stream(gateway):
    gateway.engine.answer(sse())
    response = await gateway.chat(chat_body(stream=True))
    assert split_stream(response.content)[0] == b""
    await gateway.verify(response, outcomes=["upstream_malformed"])


async def test_terminator_missing(gateway):
    gateway.engine.answer(sse(*EVENTS[:-1]))
    response = await gateway.chat(chat_body(stream=True))
    assert split_stream(response.content)[0] == b"".join(EVENTS[:-1])
    await gateway.verify(response, outcomes=["complete"])
    assert gateway.exchange.transcript.terminator_missing


async def test_stream_that_ends_early_is_truncated(gateway):
    gateway.engine.answer(sse(*EVENTS[:3]))
    response = await gateway.chat(chat_body(stream=True))
    await gateway.verify(response, outcomes=["truncated"])


async def test_nothing_follows_a_fragment(gateway):
    fragment = EVENTS[2][:40]
    gateway.engine.answer(sse(*EVENTS[:2], fragment))
    response = await gateway.chat(chat_body(stream=True))
    assert response.content == b"".join(EVENTS[:2]) + fragment
    await gateway.verify(response, outcomes=["truncated"])


async def test_error_event_comes_after_the_attestation(gateway):
    error = b'data: {"error": {"message": "x", "type": "E", "code": 500}}\n\n'
    gateway.engine.answer(sse(EVENTS[0], error, DONE))
    response = await gateway.chat(chat_body(stream=True))
    covered, _ = split_stream(response.content)
    assert covered == EVENTS[0] + error + DONE
    assert response.content.endswith(b"\n\n" + error + DONE)
    await gateway.verify(response, outcomes=["upstream_error"])


async def test_what_follows_the_terminal_event_is_dropped(gateway):
    gateway.engine.answer(sse(STREAM + EVENTS[1], EVENTS[1]))
    response = await gateway.chat(chat_body(stream=True))
    assert split_stream(response.content)[0] == STREAM
    await gateway.verify(response)


async def test_engine_that_does_not_close_after_the_terminal_event(
    gateway, monkeypatch
):
    monkeypatch.setattr("gateway.call._DRAIN_SECONDS", 0.05)
    gateway.engine.answer(Answer([head(), chunk(STREAM), HANG]))
    response = await gateway.chat(chat_body(stream=True))
    assert split_stream(response.content)[0] == STREAM
    await asyncio.wait_for(gateway.engine.all_closed.wait(), 5)


async def gather(response, pieces):
    async for piece in response.aiter_raw():
        pieces.append(piece)


async def broken_stream(gateway, body=None):
    """The bytes that came before the connection broke, and the head's id."""
    request = gateway.client.build_request(
        "POST", "/v1/chat/completions", json=body or chat_body(stream=True)
    )
    response = await gateway.client.send(request, stream=True)
    pieces = []
    with pytest.raises(httpx2.RemoteProtocolError, match="peer closed connection"):
        await gather(response, pieces)
    await response.aclose()
    return b"".join(pieces), response.headers["attestation-id"]


async def test_engine_that_dies_in_a_stream(gateway):
    gateway.engine.answer(Answer([head(), chunk(EVENTS[0]), chunk(EVENTS[1]), RESET]))
    received, attestation_id = await broken_stream(gateway)
    covered, token = split_stream(received)
    assert covered == EVENTS[0] + EVENTS[1]
    kept = await gateway.attester.bundle(attestation_id)
    assert kept.token == token
    claims = await gateway.claims(attestation_id)
    assert claims["res"]["outcome"] == "upstream_error"
    assert claims["res"]["content_digest"] == digest(covered)


async def test_engine_that_dies_within_an_event(gateway):
    gateway.engine.answer(Answer([head(), chunk(EVENTS[0] + EVENTS[1][:30]), RESET]))
    received, attestation_id = await broken_stream(gateway)
    assert split_stream(received)[0] == EVENTS[0]
    claims = await gateway.claims(attestation_id)
    assert claims["res"]["outcome"] == "upstream_error"


async def test_event_beyond_bounds_ends_the_stream(gateway, monkeypatch):
    monkeypatch.setattr("attest.sse.MAX_EVENT", 8000)
    gateway.engine.answer(sse(EVENTS[0], b"data: " + b"x" * 9000))
    received, attestation_id = await broken_stream(gateway)
    assert split_stream(received)[0] == EVENTS[0]
    claims = await gateway.claims(attestation_id)
    assert claims["res"]["outcome"] == "upstream_malformed"


async def test_server_that_stops_in_a_stream(gateway):
    gateway.engine.answer(Answer([head(), chunk(EVENTS[0]), HANG]))
    asking = asyncio.create_task(broken_stream(gateway))
    await eventually(lambda: gateway.attester._open)
    # What uvicorn does at the end of its graceful timeout.
    for task in gateway.server.server_state.tasks:
        task.cancel()
    await gateway.state.drained()
    received, attestation_id = await asking
    covered, token = split_stream(received)
    kept = await gateway.attester.bundle(attestation_id)
    assert kept.token == token
    claims = await gateway.claims(attestation_id)
    assert claims["res"]["outcome"] == "truncated"
    assert claims["res"]["content_digest"] == digest(covered)
    await asyncio.wait_for(gateway.engine.all_closed.wait(), 5)


# Clients that leave.


async def leave(gateway, *, after, body):
    """Open a connection, send a request, leave once `after` bytes of it have come."""
    content = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
        b"content-type: application/json\r\n"
        + f"content-length: {len(content)}\r\n\r\n".encode()
        + content
    )
    received = b""
    while after not in received:
        received += await reader.read(65536)
    abort_with_reset(writer)


async def test_client_that_leaves_in_a_stream(gateway):
    gateway.engine.answer(Answer([head(), chunk(EVENTS[0]), chunk(EVENTS[1]), HANG]))
    await leave(gateway, after=EVENTS[1], body=chat_body(stream=True))
    await asyncio.wait_for(gateway.engine.all_closed.wait(), 5)
    exchange = await gateway.wait_sealed()
    claims = await gateway.claims(exchange.id)
    assert claims["res"]["outcome"] == "client_disconnected"
    assert claims["res"]["content_digest"] == digest(EVENTS[0] + EVENTS[1])
    assert gateway.state.in_flight == 0


async def test_client_that_leaves_while_the_engine_thinks(gateway):
    gateway.engine.answer(Answer([HANG]))
    leaving = asyncio.create_task(leave(gateway, after=b"", body=chat_body()))
    await leaving
    await asyncio.wait_for(gateway.engine.all_closed.wait(), 5)
    exchange = await gateway.wait_sealed()
    claims = await gateway.claims(exchange.id)
    assert claims["res"]["outcome"] == "client_disconnected"
    assert claims["res"]["status"] == 499
    assert claims["res"]["content_bytes"] == 0


async def test_client_that_leaves_after_the_terminal_event(gateway):
    gateway.engine.answer(sse(STREAM))
    await leave(gateway, after=DONE, body=chat_body(stream=True))
    exchange = await gateway.wait_sealed()
    assert str(exchange.outcome) == "complete"
    assert len(gateway.attester.exchanges) == 1


async def test_clients_that_leave_cost_no_connection(gateway):
    gateway.engine.answer(Answer([head(), chunk(EVENTS[0]), HANG]))
    await asyncio.gather(
        *(
            leave(gateway, after=EVENTS[0], body=chat_body(stream=True))
            for _ in range(40)
        )
    )
    await asyncio.wait_for(gateway.engine.all_closed.wait(), 10)
    gateway.engine.answer(json_answer(BODY))
    await gateway.verify(await gateway.chat())
    assert gateway.state.in_flight == 0


# The attestation cannot be made.


async def test_answer_that_cannot_be_attested_is_withheld(gateway):
    gateway.engine.answer(json_answer(BODY))
    gateway.attester.fail_with = StoreError("disk full")
    response = await gateway.chat()
    assert response.status_code == 503
    assert "attestation-id" not in response.headers
    assert "disk" not in response.text
    assert b"chatcmpl" not in response.content


async def test_refusal_that_cannot_be_attested(gateway):
    gateway.attester.fail_with = StoreError("disk full")
    response = await gateway.chat(b"{")
    assert response.status_code == 503
    assert "attestation-id" not in response.headers


async def test_stream_that_cannot_be_attested_never_ends_well(gateway):
    gateway.engine.answer(sse(STREAM))
    gateway.attester.fail_with = StoreError("disk full")
    received, _ = await broken_stream(gateway)
    assert received == STREAM.removesuffix(DONE)


# Requests that are refused here.


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b'{"messages": [], "messages": []}', None),
        (b'{"messages": [], "temperature": NaN}', None),
        (b'\xef\xbb\xbf{"messages": []}', None),
        (b'{"messages": "hello"}', "messages"),
        (b'{"messages": [], "stream": "true"}', "stream"),
        (b'{"messages": [], "n": "2"}', "n"),
        (b'{"messages": [], "n": 1000}', "n"),
        (b'{"messages": [], "model": 7}', "model"),
    ],
)
async def test_unusable_body_is_refused_and_attested(gateway, body, param):
    response = await gateway.chat(body)
    assert response.status_code == 400
    error = error_of(response)
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert gateway.engine.requests == []
    await gateway.verify(response, outcomes=["refused"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attestation-nonce", "short"),
        ("attestation-nonce", "x" * 89),
        ("attestation-nonce", "with space"),
        ("attestation-nonce", "a" * 87 + "=="),
        ("attestation-delivery", "event"),
    ],
)
async def test_unusable_header_is_refused_and_attested(gateway, name, value):
    response = await gateway.chat(headers={name: value})
    assert response.status_code == 400
    assert gateway.engine.requests == []
    await gateway.verify(response, outcomes=["refused"])


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-encoding": "gzip"},
    ],
)
async def test_body_of_another_kind_is_not_read(gateway, headers):
    response = await gateway.chat(headers=headers)
    assert response.status_code == 415
    assert gateway.attester.exchanges == []


async def test_charset_beside_the_media_type(gateway):
    gateway.engine.answer(json_answer(BODY))
    kind = {"content-type": "Application/JSON; charset=utf-8"}
    assert (await gateway.chat(headers=kind)).status_code == 200


async def test_body_over_the_limit(tmp_path):
    limits = LimitSettings(max_body_bytes=100, max_concurrency=1)
    async with running_gateway(tmp_path, limits=limits) as gateway:
        gateway.engine.answer(json_answer(BODY))
        assert (await gateway.chat(b"x" * 101)).status_code == 413

        async def pieces():
            for _ in range(11):
                yield b'{"messages"'

        response = await gateway.client.post(
            "/v1/chat/completions",
            content=pieces(),
            headers={"content-type": "application/json"},
        )
        assert response.status_code == 413
        assert (await gateway.chat()).status_code == 200


async def test_body_that_does_not_come(gateway):
    gateway.state.limits = LimitSettings(body_seconds=0.05)
    received = await gateway.raw(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
        b"content-type: application/json\r\ncontent-length: 10\r\n\r\n{"
    )
    assert received.startswith(b"HTTP/1.1 408 ")
    assert gateway.attester.exchanges == []


async def test_client_that_leaves_before_its_body(gateway):
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
        b"content-type: application/json\r\ncontent-length: 10\r\n\r\n{"
    )
    await writer.drain()
    await eventually(lambda: gateway.state.in_flight)
    writer.transport.abort()
    await eventually(lambda: not gateway.state.in_flight)
    assert gateway.attester.exchanges == []


async def test_too_many_requests(tmp_path):
    limits = LimitSettings(max_body_bytes=1000, max_concurrency=1)
    async with running_gateway(tmp_path, limits=limits) as gateway:
        go_on = asyncio.Event()
        gateway.engine.answer(
            Answer([go_on, *json_answer(BODY).steps]), json_answer(BODY)
        )
        first = asyncio.create_task(gateway.chat())
        await eventually(lambda: gateway.engine.requests)
        second = await gateway.chat()
        assert second.status_code == 429
        assert second.headers["retry-after"] == "1"
        assert error_of(second)["type"] == "rate_limit_error"
        go_on.set()
        assert (await first).status_code == 200
        assert (await gateway.chat()).status_code == 200


async def test_not_ready(gateway):
    gateway.state.serving, gateway.state.progress = None, "checking the weights, 40%"
    response = await gateway.chat()
    assert response.status_code == 503
    assert "checking the weights, 40%" in error_of(response)["message"]
    assert response.headers["retry-after"] == "5"


async def test_api_key(tmp_path):
    known = bytes.fromhex(digest(b"secret")[7:])
    async with running_gateway(tmp_path, api_keys=[known]) as gateway:
        gateway.engine.answer(json_answer(BODY))
        for value in ("", "Bearer", "Bearer wrong", "Basic secret", "secret"):
            response = await gateway.chat(headers={"authorization": value})
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"
            assert error_of(response)["type"] == "authentication_error"
        assert gateway.engine.requests == []
        response = await gateway.chat(headers={"authorization": "bearer secret"})
        assert response.status_code == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "HEAD"])
async def test_wrong_method(gateway, method):
    response = await gateway.client.request(method, "/v1/chat/completions")
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"


# What is passed on.


async def test_models(gateway):
    body = (VECTORS / "models.response.json").read_bytes()
    gateway.engine.answer(json_answer(body))
    response = await gateway.client.get("/v1/models?x=1")
    assert (response.status_code, response.content) == (200, body)
    assert response.headers["attestation-manifest"] == gateway.world.manifest.digest
    assert gateway.engine.requests[0].path == "/v1/models"
    assert gateway.attester.exchanges == []


async def test_models_of_an_engine_that_is_not_there(gateway):
    await gateway.engine.stop()
    response = await gateway.client.get("/v1/models")
    assert response.status_code == 503


async def test_health(gateway):
    assert (await gateway.client.get("/healthz")).json() == {"status": "ok"}
    response = await gateway.client.get("/readyz")
    assert (response.status_code, response.json()["ready"]) == (200, True)
    gateway.state.refuse_all("the engine has ended")
    response = await gateway.client.get("/readyz")
    assert response.status_code == 503
    assert response.json() == {"ready": False, "progress": "the engine has ended"}


async def test_unknown_path(gateway):
    response = await gateway.client.get("/nothing", headers={"x-request-id": "r-1"})
    assert response.status_code == 404
    assert error_of(response)["type"] == "not_found_error"
    assert response.headers["x-request-id"] == "r-1"


async def test_framework_errors_have_the_same_shape(gateway):
    response = await gateway.client.post("/healthz")
    assert response.status_code == 405
    assert error_of(response)["code"] == 405
    assert response.headers["allow"] == "GET"


async def test_internal_error_tells_nothing(gateway, monkeypatch):
    monkeypatch.setattr(
        type(gateway.state), "ready", property(lambda _: 1 / 0), raising=True
    )
    response = await gateway.client.get("/readyz")
    assert response.status_code == 500
    assert error_of(response)["message"] == "internal error"


async def test_internal_error_of_a_row_tells_nothing(gateway, monkeypatch):
    monkeypatch.setattr("gateway.proxy.RequestLog", lambda *_: 1 / 0)
    response = await gateway.chat()
    assert response.status_code == 500
    assert error_of(response)["message"] == "internal error"
    monkeypatch.undo()
    gateway.engine.answer(json_answer(BODY))
    await gateway.verify(await gateway.chat())


@pytest.mark.parametrize(
    "name", ["content-digest", "digest", "x-request-hash", "attestation", "x-body-hash"]
)
async def test_digest_that_a_client_sends_changes_nothing(gateway, name):
    gateway.engine.answer(json_answer(BODY))
    body = json.dumps(chat_body()).encode()
    response = await gateway.chat(body, headers={name: "sha-256=:AAAA:"})
    claims = await gateway.verify(response)
    assert "altered" not in claims
    assert name not in gateway.engine.requests[0].headers
    assert gateway.exchange.received == gateway.exchange.forwarded == body
