"""Clients that are slow on purpose: none of them holds a connection, a slot or memory.

A head that never ends, a body a byte at a time, an answer that nobody reads.
"""

import asyncio
import hashlib
import json
import socket

import httpx2
import pytest
from fakes.gateway import CHAT, chat_body, eventually, running_gateway
from fakes.upstream import HANG, LAST, Answer, chunk, head, json_answer, sse
from fakes.world import ANSWER

from gateway.auth import ApiKeys
from gateway.connection import MAX_HEAD_BYTES
from gateway.settings import LimitSettings

LIMITS = LimitSettings(
    head_seconds=0.2, body_seconds=0.2, idle_seconds=0.2, answer_seconds=1
)
FINISH = (
    b'data: {"id":"c","model":"tiny","choices":[{"index":0,"delta":{},'
    b'"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)
FIRST_LINE = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\n".encode()


@pytest.fixture
async def gateway(tmp_path):
    async with running_gateway(tmp_path, limits=LIMITS) as running:
        yield running


def post(body, length=None):
    length = len(body) if length is None else length
    fields = f"content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    return FIRST_LINE + fields.encode() + body


async def closed(reader):
    """All that comes until the server closes; a reset counts as nothing more."""
    async with asyncio.timeout(5):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


async def test_connection_without_a_request_is_closed(gateway):
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    assert await closed(reader) == b""
    writer.close()


async def test_head_a_byte_at_a_time_is_closed(gateway):
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)

    async def drip():
        for byte in FIRST_LINE * 100:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.01)

    dripping = asyncio.create_task(drip())
    assert await closed(reader) == b""
    dripping.cancel()
    writer.close()


async def test_slow_head_after_an_answered_request_is_closed(gateway):
    """The clock runs for each request, not only for the first."""
    gateway.engine.answer(json_answer(b"{}"))
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(post(json.dumps(chat_body()).encode()))
    assert await reader.readline()
    writer.write(b"POST /v1/chat/comp")
    assert b"HTTP/1.1 2" not in await closed(reader)
    writer.close()


async def test_endless_head_is_cut_at_its_bound(gateway):
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(FIRST_LINE)
    await writer.drain()
    sent = 0
    with pytest.raises((ConnectionError, TimeoutError)):  # noqa: PT012
        async with asyncio.timeout(5):
            while sent < 64 * MAX_HEAD_BYTES:
                writer.write(b"x-a: " + b"a" * 1000 + b"\r\n")
                await writer.drain()
                sent += 1007
                await asyncio.sleep(0)
    assert sent < 64 * MAX_HEAD_BYTES
    assert await closed(reader) == b""


async def test_body_a_byte_at_a_time_gets_408_and_frees_its_slot(gateway):
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(post(b"{", length=1000))
    answer = await closed(reader)
    assert answer.startswith(b"HTTP/1.1 408")
    assert gateway.state.in_flight == 0
    writer.close()


def event(size):
    data = json.dumps({"choices": [{"index": 0, "delta": {"content": "x" * size}}]})
    return b"data: " + data.encode() + b"\n\n"


async def test_answer_that_nobody_reads_frees_engine_and_slot(gateway):
    """Its record says that the client left, with what was handed to the connection."""
    gateway.engine.answer(sse(*[event(30_000)] * 400))
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, ("127.0.0.1", gateway.port))
    body = json.dumps(chat_body(stream=True)).encode()
    await loop.sock_sendall(connection, post(body))
    exchange = await gateway.wait_sealed()
    assert exchange.outcome == "client_disconnected"
    assert 0 < exchange.content_bytes < 400 * 30_000
    await eventually(lambda: gateway.state.in_flight == 0)
    await asyncio.wait_for(gateway.engine.all_closed.wait(), 5)
    # The gateway's side is gone too: what comes now is a reset.
    await eventually(lambda: not gateway.server.server_state.connections)
    connection.close()


async def test_steady_reader_is_served_for_longer_than_it_may_be_idle(gateway):
    pause = [asyncio.Event() for _ in range(4)]
    steps = [step for wait in pause for step in (chunk(event(5)), wait)]
    gateway.engine.answer(Answer([head(), *steps, chunk(FINISH), LAST]))

    async def release():
        for wait in pause:
            await asyncio.sleep(0.15)
            wait.set()

    releasing = asyncio.create_task(release())
    response = await gateway.chat(chat_body(stream=True))
    await releasing
    claims = await gateway.verify(response)
    assert claims["res"]["outcome"] == "complete"


async def test_stream_without_an_end_is_ended_and_recorded_as_truncated(gateway):
    gateway.engine.answer(Answer([head(), chunk(event(5)), HANG]))
    with pytest.raises(httpx2.RemoteProtocolError):
        await gateway.chat(chat_body(stream=True))
    exchange = await gateway.wait_sealed()
    assert exchange.outcome == "truncated"
    await asyncio.wait_for(gateway.engine.all_closed.wait(), 5)


async def test_answer_that_takes_too_long_gets_an_attested_504(gateway):
    gateway.engine.answer(Answer([head(kind="application/json"), HANG]))
    response = await gateway.chat()
    assert response.status_code == 504
    await gateway.verify(response, outcomes=("upstream_error",))


async def test_one_api_key_takes_no_more_than_its_share(tmp_path):
    limits = LimitSettings(max_concurrency_per_key=1)
    names = {hashlib.sha256(name).digest(): name.decode() for name in (b"a", b"b")}
    async with running_gateway(tmp_path, limits=limits) as gateway:
        gateway.state.api_keys = ApiKeys(names)
        gateway.engine.answer(Answer([head(), HANG]), json_answer(ANSWER))
        first = asyncio.create_task(gateway.chat(headers={"authorization": "Bearer a"}))
        await eventually(lambda: gateway.state.in_flight == 1)
        again = await gateway.chat(headers={"authorization": "Bearer a"})
        other = await gateway.chat(headers={"authorization": "Bearer b"})
        assert (again.status_code, other.status_code) == (429, 200)
        assert "API key" in again.json()["error"]["message"]
        first.cancel()
