import asyncio
from collections import Counter

from fakes.gateway import CHAT, eventually
from fakes.served_app import Served, post

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
