"""The one timer for all who wait for the store's writer."""

import asyncio

import pytest

from gateway.errors import StoreError
from gateway.store.deadlines import Deadlines


def deadlines(seconds):
    return Deadlines(seconds, lambda: StoreError("silent"))


async def test_what_is_done_in_time_is_given():
    future = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(deadlines(60).wait(future))
    await asyncio.sleep(0)
    future.set_result(None)
    await waiting


async def test_whoever_waits_too_long_is_told_and_whoever_came_later_is_not():
    loop, one = asyncio.get_running_loop(), deadlines(0.05)
    first, second = loop.create_future(), loop.create_future()
    early = asyncio.create_task(one.wait(first))
    await asyncio.sleep(0.03)
    late = asyncio.create_task(one.wait(second))
    with pytest.raises(StoreError):
        await early
    assert not late.done()
    second.set_result(None)
    await late


async def test_the_timer_goes_on_for_whoever_comes_after_a_pause():
    loop, one = asyncio.get_running_loop(), deadlines(0.01)
    for _ in range(2):
        with pytest.raises(StoreError):
            await one.wait(loop.create_future())
        await asyncio.sleep(0.03)


async def test_whoever_is_cancelled_is_forgotten():
    one = deadlines(60)
    waiting = asyncio.create_task(one.wait(asyncio.get_running_loop().create_future()))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert not one._since


def test_another_event_loop_has_a_timer_of_its_own():
    one = deadlines(0.01)

    async def wait():
        await one.wait(asyncio.get_running_loop().create_future())

    for _ in range(2):
        with pytest.raises(StoreError):
            asyncio.run(wait())
