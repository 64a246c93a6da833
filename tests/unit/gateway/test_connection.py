import asyncio
from collections import Counter

import pytest
from fakes.gateway import CHAT, eventually
from fakes.served_app import Served, post

from gateway.asgi import send_body
from gateway.connection import _AT_ONCE, LOST, connection_class


async def test_clients_that_leave_together_are_told_of_a_few_at_a_time():
    turn, told, begun = 0, [], 0
    loop = asyncio.get_running_loop()

    def count_turns():
        nonlocal turn
        turn += 1
        loop.call_soon(count_turns)

    async def app(scope, receive, send):
        nonlocal begun
        scope["extensions"][LOST]["tell"](lambda: told.append(turn))
        begun += 1
        while (await receive())["type"] != "http.disconnect":
            pass

    async with Served(app, connection_class(5)) as served:
        clients = [
            await asyncio.open_connection("127.0.0.1", served.port) for _ in range(40)
        ]
        for _, writer in clients:
            writer.write(post(CHAT))
        await eventually(lambda: begun == 40)
        loop.call_soon(count_turns)
        for _, writer in clients:
            writer.transport.abort()
        await eventually(lambda: len(told) == 40)
    assert max(Counter(told).values()) <= _AT_ONCE


async def test_request_that_ended_meanwhile_is_told_nothing():
    told, release = [], asyncio.Event()

    async def app(scope, receive, send):
        forget = scope["extensions"][LOST]["tell"](lambda: told.append(1))
        await release.wait()
        forget()

    async with Served(app, connection_class(5)) as served:
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(post(CHAT))
        await asyncio.sleep(0.05)
        release.set()
        writer.transport.abort()
        await asyncio.sleep(0.05)
    assert not told


async def answers(scope, receive, send):
    if scope["query_string"] == b"slow":
        await asyncio.sleep(0.4)
    await send_body(send, 200, [], b"there")


SLOW = CHAT + "?slow"
KEPT = 0.15


async def open_for(http, *writes):
    """How long a connection lives that says this, each after so many seconds."""
    async with Served(answers, http) as served:
        served.config.timeout_keep_alive = KEPT
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        began = asyncio.get_running_loop().time()
        for seconds, data in writes:
            await asyncio.sleep(seconds)
            writer.write(data)
        async with asyncio.timeout(3):
            said = await reader.read()
        writer.close()
        return said.count(b"there"), asyncio.get_running_loop().time() - began


@pytest.mark.parametrize("http", [connection_class(5), "httptools"])
@pytest.mark.parametrize(
    ("writes", "count", "least"),
    [
        ([(0, post(CHAT))], 1, KEPT),
        ([(0, post(SLOW))], 1, 0.4 + KEPT),
        ([(0, post(CHAT)), (0.1, post(CHAT)), (0.1, post(CHAT))], 3, 0.2 + KEPT),
        ([(0, post(CHAT)), (0.05, post(CHAT)[:9]), (0.3, post(CHAT)[9:])], 2, 0.5),
        ([(0, post(CHAT) * 3)], 3, KEPT),
        ([(0, post(SLOW) + post(CHAT)[:9]), (0.1, post(CHAT)[9:])], 2, 0.4 + KEPT),
        ([(0, post(CHAT, b"body")[:-1]), (0.1, b"y"), (0.1, post(CHAT))], 2, 0.3),
    ],
)
async def test_idle_connection_is_closed_and_no_other(http, writes, count, least):
    answered, seconds = await open_for(http, *writes)
    assert answered == count
    assert seconds > least - 0.02


async def test_empty_lines_after_an_answer_hold_no_connection():
    answered, _ = await open_for(connection_class(5), (0, post(CHAT)), (0.05, b"\r\n"))
    assert answered == 1


async def test_half_a_head_behind_an_answer_is_held_to_its_time():
    rest = post(CHAT)[:9]
    answered, _ = await open_for(connection_class(0.3), (0, post(SLOW) + rest))
    assert answered <= 1
