"""An engine that says more than its answer: early heads, trailers, headers of ours.

The gateway hands on the one answer, with headers of its own, and attests just that.
"""

import pytest
from fakes.gateway import running_gateway
from fakes.upstream import CLOSE, Answer, chunk, head, json_answer
from fakes.world import ANSWER, STREAM

EARLY = b"HTTP/1.1 103 Early Hints\r\nlink: </x>; rel=preload\r\n\r\n"


@pytest.fixture
async def gateway(tmp_path):
    async with running_gateway(tmp_path) as running:
        yield running


def plain(*, before):
    first, body = json_answer(ANSWER).steps
    return Answer([before + first, body])


@pytest.mark.parametrize("before", [b"HTTP/1.1 100 Continue\r\n\r\n", EARLY, EARLY * 3])
async def test_heads_before_the_head(gateway, before):
    gateway.engine.answer(plain(before=before))
    response = await gateway.chat()
    assert (response.status_code, response.content) == (200, ANSWER)
    assert "link" not in response.headers
    await gateway.verify(response)


async def test_a_change_of_protocol(gateway):
    switched = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: evil\r\n\r\n"
    gateway.engine.answer(Answer([switched + b"anything at all", CLOSE]))
    response = await gateway.chat()
    assert response.status_code == 502
    assert b"anything" not in response.content
    assert "upgrade" not in response.headers


async def test_trailers(gateway):
    trailer = b"0\r\nattestation: a.b.c\r\nset-cookie: x=1\r\n\r\n"
    gateway.engine.answer(Answer([head(), chunk(STREAM), trailer]))
    body = {"model": "tiny", "messages": [], "stream": True}
    response = await gateway.chat(
        {**body, "messages": [{"role": "user", "content": "x"}]}
    )
    assert "attestation" not in response.headers
    assert "set-cookie" not in response.headers
    assert b"a.b.c" not in response.content
    await gateway.verify(response)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x_id", "a\r\nset-cookie: evil=1"),
        ("x_id", "a\nattestation: a.b.c"),
    ],
)
async def test_headers_that_end_their_line(gateway, name, value):
    """To the parser they are two headers; ours are a fixed set all the same."""
    gateway.engine.answer(json_answer(ANSWER, **{name: value}))
    response = await gateway.chat()
    assert "set-cookie" not in response.headers
    assert response.headers.get("attestation") != "a.b.c"


async def test_two_lengths(gateway):
    first = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
    lengths = f"content-length: {len(ANSWER)}\r\ncontent-length: 3\r\n\r\n".encode()
    gateway.engine.answer(Answer([first + lengths + ANSWER, CLOSE]))
    response = await gateway.chat()
    assert response.status_code == 502
    assert response.headers["attestation-id"]


async def test_a_length_and_chunks(gateway):
    """Two ways to say where it ends; whoever reads it, reads one answer or none."""
    mixed = head(200, "application/json", content_length=5, transfer_encoding="chunked")
    gateway.engine.answer(Answer([mixed + chunk(ANSWER) + b"0\r\n\r\n", CLOSE]))
    response = await gateway.chat()
    assert response.status_code == 502 or response.content == ANSWER
