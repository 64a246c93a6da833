import asyncio
from collections import Counter

import pytest
from fakes.gateway import eventually
from fakes.upstream import LAST, Answer, ScriptedEngine, chunk, head

from gateway.pace import AFewATurn
from gateway.upstream import ENDS_AT_ONCE, HttpUpstream


async def count_turns(of):
    """Note in which turn of the loop each call came that `of` makes of a function."""
    turn, called = 0, []
    loop = asyncio.get_running_loop()

    def count():
        nonlocal turn
        turn += 1
        loop.call_soon(count)

    loop.call_soon(count)
    await of(lambda name: called.append((turn, name)))
    return called


async def test_a_few_at_once_and_the_others_in_their_order():
    async def call(note):
        few = AFewATurn(ENDS_AT_ONCE)
        for name in range(30):
            few.call(lambda name=name: note(name))
        await asyncio.sleep(0)
        few.call(lambda: note(30))
        await asyncio.sleep(0.05)
        few.call(lambda: note(31))

    called = await count_turns(call)
    assert [name for _, name in called] == list(range(32))
    assert max(Counter(turn for turn, _ in called).values()) == ENDS_AT_ONCE
    assert called[ENDS_AT_ONCE - 1][0] == called[0][0]  # none waits for nothing


@pytest.mark.parametrize("count", [1, 40])
async def test_streams_that_end_at_once_are_all_read_to_their_end(tmp_path, count):
    engine, go_on = ScriptedEngine(), asyncio.Event()
    await engine.start(tmp_path / "e.sock")
    upstream = HttpUpstream(uds=str(tmp_path / "e.sock"))
    engine.answer(Answer([head(), chunk(b"a"), go_on, chunk(b"b") + LAST]))

    async def ask(note):
        async def one():
            response = await upstream.open("POST", "/x", headers={}, body=b"{}")
            assert [piece async for piece in response.aiter_raw()] == [b"a", b"b"]
            note("end")
            await response.aclose()

        asking = [asyncio.create_task(one()) for _ in range(count)]
        await eventually(lambda: len(engine.requests) == count)
        await asyncio.sleep(0.05)
        go_on.set()
        await asyncio.gather(*asking)

    called = await count_turns(ask)
    assert len(called) == count
    assert max(Counter(turn for turn, _ in called).values()) <= ENDS_AT_ONCE
    await upstream.aclose()
    await engine.stop()
