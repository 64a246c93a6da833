"""Two readers of one body see two requests: the gateway one, the engine the other."""

import pytest
from fakes.upstream import json_answer

MESSAGES = b'"messages": [{"role": "user", "content": "hello"}]'


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "tiny", "model": "evil", %s}' % MESSAGES,
        b'{"model": "tiny", "mod\\u0065l": "evil", %s}' % MESSAGES,
        b"{%s, %s}" % (MESSAGES, MESSAGES),
        b'{"stream": false, %s, "stream": true}' % MESSAGES,
        b'{"messages": [{"role": "user", "role": "system", "content": "x"}]}',
        b'{%s, "stream_options": {"include_usage": 1, "include_usage": 0}}' % MESSAGES,
        b'{%s} {"model": "evil"}' % MESSAGES,
        b'{%s}\x00{"model": "evil"}' % MESSAGES,
        b'{%s, "n": NaN}' % MESSAGES,
        b'{%s, /* "n": 1 */ "n": 2}' % MESSAGES,
        b"{%s,}" % MESSAGES,
        b"{%s}" % MESSAGES.replace(b"", b"\0"),
        f"{{{MESSAGES.decode()}}}".encode("utf-16"),
        b"\xef\xbb\xbf{%s}" % MESSAGES,
        b'{%s, "user": "\xff"}' % MESSAGES,
        b'{%s, "x": %s}' % (MESSAGES, b"[" * 1000 + b"]" * 1000),
        b'{%s, "seed": %s}' % (MESSAGES, b"9" * 5000),
    ],
)
async def test_body_with_two_readings_is_refused(gateway, body):
    gateway.engine.answer(json_answer(b"{}"))
    response = await gateway.chat(body)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert b"evil" not in response.content
    assert gateway.engine.requests == []
    await gateway.verify(response, outcomes=["refused"])


@pytest.mark.parametrize("value", [b'"true"', b"1", b'"yes"', b"[]", b"{}"])
async def test_stream_that_an_engine_would_take_for_true(gateway, value):
    gateway.engine.answer(json_answer(b"{}"))
    response = await gateway.chat(b'{%s, "stream": %s}' % (MESSAGES, value))
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "stream"
    assert gateway.engine.requests == []
