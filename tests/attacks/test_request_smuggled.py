"""Requests that two readers read as two different requests, and headers of ours.

What reaches the engine is made by the gateway: one request, of a fixed set of headers.
"""

import json

import pytest
from fakes.gateway import chat_body, running_gateway
from fakes.upstream import json_answer
from fakes.world import ANSWER

BODY = json.dumps(chat_body()).encode()
START = b"POST /v1/chat/completions HTTP/1.1\r\n"
FIELDS = b"host: x\r\ncontent-type: application/json\r\nconnection: close\r\n"
SLEEP = b"POST /sleep HTTP/1.1\r\nhost: engine\r\ncontent-length: 0\r\n\r\n"


@pytest.fixture
async def gateway(tmp_path):
    async with running_gateway(tmp_path) as running:
        running.engine.answer(json_answer(ANSWER))
        yield running


def length(number=None):
    return f"content-length: {number or len(BODY)}\r\n".encode()


CHUNKED = b"transfer-encoding: chunked\r\n"
CHUNK = f"{len(BODY):x}\r\n".encode() + BODY + b"\r\n0\r\n\r\n"
SMUGGLED = {
    "two lengths": START + FIELDS + length() + length(3) + b"\r\n" + BODY,
    "two lengths in one": START + FIELDS + b"content-length: 3, 400\r\n\r\n" + BODY,
    "length with a sign": START + FIELDS + b"content-length: +3\r\n\r\n" + BODY,
    "length in hex": START + FIELDS + b"content-length: 0x10\r\n\r\n" + BODY,
    "length that is negative": START + FIELDS + b"content-length: -1\r\n\r\n" + BODY,
    "chunked and a length": START + FIELDS + CHUNKED + length(4) + b"\r\n" + CHUNK,
    "chunked twice": START + FIELDS + CHUNKED * 2 + b"\r\n" + CHUNK,
    "another coding": START
    + FIELDS
    + b"transfer-encoding: gzip, chunked\r\n\r\n"
    + CHUNK,
    "chunked, misspelt": START
    + FIELDS
    + b"transfer-encoding: xchunked\r\n\r\n"
    + CHUNK,
    "chunked on a folded line": START
    + FIELDS
    + b"transfer-encoding:\r\n chunked\r\n\r\n"
    + CHUNK,
    "space before the colon": START + FIELDS + b"content-length : 5\r\n\r\n" + BODY,
    "chunk size with junk": START + FIELDS + CHUNKED + b"\r\n5;\x00x\r\n" + BODY,
    "folded header": START + FIELDS + b"x-a: b\r\n c\r\n" + length() + b"\r\n" + BODY,
    "bare line feeds": START.replace(b"\r\n", b"\n")
    + FIELDS.replace(b"\r\n", b"\n")
    + b"\n"
    + BODY,
    "null in a header": START + FIELDS + b"x-a: b\0c\r\n" + length() + b"\r\n" + BODY,
    "no length at all": START + b"connection: close\r\n\r\n" + SLEEP,
}


@pytest.mark.parametrize("name", SMUGGLED)
async def test_ambiguous_request(gateway, name):
    """Refused, or read as one request, and never more than one is sent on."""
    received = await gateway.raw(SMUGGLED[name] + SLEEP)
    assert received.count(b"HTTP/1.1 200") <= 1
    assert all(r.path == "/v1/chat/completions" for r in gateway.engine.requests)
    assert len(gateway.engine.requests) <= 1
    for request in gateway.engine.requests:
        assert json.loads(request.body) == chat_body()


@pytest.mark.parametrize(
    "model", ["tiny\r\nx-evil: 1", "tiny\n\nPOST /sleep", "tiny\0", "../tiny", "\u2028"]
)
async def test_line_ends_in_the_name_of_a_model(gateway, model):
    response = await gateway.chat(chat_body(model=model))
    assert response.status_code == 404
    assert gateway.engine.requests == []
    assert "x-evil" not in response.headers


@pytest.mark.parametrize(
    "name",
    [
        "attestation",
        "attestation-id",
        "x-forwarded-for",
        "x-forwarded-host",
        "forwarded",
        "x-original-url",
        "x-rewrite-url",
        "x-http-method-override",
        "transfer-encoding-x",
        "cookie",
    ],
)
async def test_headers_that_a_client_makes_up(gateway, name):
    """They reach neither the engine nor the token."""
    response = await gateway.chat(headers={name: "/sleep"})
    (request,) = gateway.engine.requests
    assert request.path == "/v1/chat/completions"
    assert "/sleep" not in request.headers.values()
    claims = await gateway.verify(response)
    assert "/sleep" not in json.dumps(claims)
