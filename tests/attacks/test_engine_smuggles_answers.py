"""An engine, or who sits before it, makes two readers see two answers.

An answer whose end is open to two readings is refused and attested as a failure, and
what follows an answer is never the beginning of somebody else's.
"""

import asyncio

import pytest
from fakes.gateway import chat_body, running_gateway
from fakes.upstream import CLOSE, HANG, LAST, Answer, chunk, head, json_answer
from fakes.world import ANSWER, STREAM

from gateway.wire import MAX_HEAD

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
CODED = b"transfer-encoding: chunked\r\n"
EVIL = b'{"id":"evil"}'
EVIL_ANSWER = OK + b"content-length: %d\r\n\r\n" % len(EVIL) + EVIL


@pytest.fixture
async def gateway(tmp_path):
    async with running_gateway(tmp_path) as running:
        yield running


def length(size):
    return b"content-length: %d\r\n" % size


AMBIGUOUS = {
    "two lengths": OK
    + length(len(ANSWER))
    + length(len(ANSWER) + 9)
    + b"\r\n"
    + ANSWER,
    "one length twice": OK + length(len(ANSWER)) * 2 + b"\r\n" + ANSWER,
    "length and chunks": OK + length(5) + CODED + b"\r\n" + chunk(ANSWER) + LAST,
    "chunks and length": OK + CODED + length(5) + b"\r\n" + chunk(ANSWER) + LAST,
    "length behind a space": OK + b"content-length : 9\r\n\r\n" + ANSWER,
    "folded length": OK + b"content-length:\r\n 9\r\n\r\n" + ANSWER,
    "coding of two": OK + b"transfer-encoding: identity, chunked\r\n\r\n" + LAST,
    "coding nobody knows": OK + b"transfer-encoding: chunkedx\r\n\r\n" + ANSWER,
    "no length": OK + b"\r\n" + ANSWER,
    "chunk size beyond 64 bits": OK + CODED + b"\r\n10000000000000001\r\n" + ANSWER,
    "chunk size with a sign": OK + CODED + b"\r\n-1\r\n" + ANSWER,
    "chunk with more than it says": OK + CODED + b"\r\n2\r\n{}{}\r\n" + LAST,
    "lines that end in LF": OK.replace(b"\r", b"") + length(2) + b"\n{}",
    "length in a trailer": OK + CODED + b"\r\n" + chunk(ANSWER) + b"0\r\n" + length(9),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
async def test_answer_of_which_two_readers_see_two(gateway, name):
    gateway.engine.answer(Answer([AMBIGUOUS[name], CLOSE]), json_answer(ANSWER))
    response = await gateway.chat()
    assert response.status_code == 502
    assert b"chatcmpl" not in response.content
    await gateway.verify(response, outcomes=["upstream_error"])
    response = await gateway.chat()
    assert response.content == ANSWER
    assert gateway.engine.connections == 2


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("together", [False, True])
async def test_answer_that_waits_for_the_next_request(gateway, stream, together):
    """The same connection, one request later: a classic of response splitting."""
    mine = (
        head() + chunk(STREAM) + LAST if stream else b"".join(json_answer(ANSWER).steps)
    )
    steps = [mine + EVIL_ANSWER] if together else [mine, EVIL_ANSWER]
    gateway.engine.answer(Answer([*steps, HANG]), json_answer(ANSWER))
    first = await gateway.chat(chat_body(stream=stream))
    assert b"evil" not in first.content
    second = await gateway.chat()
    assert second.content == ANSWER
    assert gateway.engine.connections == 2
    for response in (first, second):
        await gateway.verify(response)


async def test_answer_that_was_left_in_the_middle(gateway):
    """Its reader went away; the rest of it is never read as an answer."""
    gateway.engine.answer(Answer([head(), chunk(STREAM[:99]), HANG]))
    request = gateway.client.build_request(
        "POST", "/v1/chat/completions", json=chat_body(stream=True)
    )
    response = await gateway.client.send(request, stream=True)
    await response.aclose()
    await asyncio.wait_for(gateway.engine.all_closed.wait(), 5)
    gateway.engine.answer(json_answer(ANSWER))
    assert (await gateway.chat()).content == ANSWER


ENDLESS = {
    "head": (OK, b"x: y\r\n" * 200),
    "field": (OK + b"x: ", b"y" * 1000),
    "reason": (b"HTTP/1.1 200 ", b"y" * 1000),
    "early heads": (b"", b"HTTP/1.1 103 X\r\nlink: </x>\r\n\r\n" * 30),
    "chunk extension": (OK + CODED + b"\r\n5;", b"y" * 1000),
    "trailers": (OK + CODED + b"\r\n" + chunk(EVIL) + b"0\r\n", b"x: y\r\n" * 200),
    "trailer": (OK + CODED + b"\r\n" + chunk(EVIL) + b"0\r\nx: ", b"y" * 1000),
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_answer_without_an_end(gateway, name):
    """It neither fills the memory nor holds the request."""
    first, piece = ENDLESS[name]
    more = [piece] * (20 * MAX_HEAD // len(piece))
    gateway.engine.answer(Answer([first, *more, HANG]))
    response = await asyncio.wait_for(gateway.chat(), 10)
    assert response.status_code == 502
    assert b"evil" not in response.content
    await asyncio.wait_for(gateway.engine.all_closed.wait(), 5)
    await gateway.verify(response, outcomes=["upstream_error"])


async def test_stream_that_breaks_the_rules_midway(gateway):
    """What was sent stays sent and is attested as broken."""
    event = STREAM.split(b"\n\n")[0] + b"\n\n"
    gateway.engine.answer(Answer([head(), chunk(event), b"ZZ\r\n", HANG]))
    request = gateway.client.build_request(
        "POST", "/v1/chat/completions", json=chat_body(stream=True)
    )
    response = await gateway.client.send(request, stream=True)
    with pytest.raises(Exception, match="peer closed"):
        await response.aread()
    claims = await gateway.claims(response.headers["attestation-id"])
    assert claims["res"]["outcome"] == "upstream_error"
    await asyncio.wait_for(gateway.engine.all_closed.wait(), 5)
