import asyncio

import pytest

from gateway.asgi import ClientGoneError, completed, read_body
from gateway.errors import RequestError


def receiver(*messages):
    queue = list(messages)

    async def receive():
        if queue:
            return queue.pop(0)
        return await asyncio.Event().wait()

    return receive


def part(body, *, more=False):
    return {"type": "http.request", "body": body, "more_body": more}


GONE = {"type": "http.disconnect"}


async def read(*messages, headers=(), max_bytes=10):
    return await read_body(
        {"headers": headers}, receiver(*messages), max_bytes=max_bytes, seconds=0.05
    )


async def until(task, *messages, gone=None):
    """`completed`, with a reader who stays unless `gone` says otherwise."""
    gone = gone or asyncio.get_running_loop().create_future()
    return await completed(task, receiver(*messages), gone)


async def test_body_in_parts():
    assert (
        await read(part(b"ab", more=True), part(b"", more=True), part(b"c")) == b"abc"
    )


async def test_body_at_the_limit():
    assert await read(part(b"x" * 10)) == b"x" * 10


async def test_body_over_the_limit():
    with pytest.raises(RequestError, match="larger than 10") as caught:
        await read(part(b"x" * 6, more=True), part(b"x" * 5, more=True))
    assert caught.value.status == 413


async def test_announced_body_over_the_limit_is_not_read():
    with pytest.raises(RequestError, match="larger than 10"):
        await read(headers=[(b"content-length", b"11")])


@pytest.mark.parametrize("value", [b"", b"x", b"-1", b"+5"])
async def test_length_that_is_no_number_is_not_believed(value):
    assert await read(part(b"a"), headers=[(b"content-length", value)]) == b"a"


async def test_client_that_leaves_within_its_body():
    with pytest.raises(ClientGoneError):
        await read(part(b"a", more=True), GONE)


async def test_body_that_comes_too_slowly():
    with pytest.raises(RequestError, match=r"within 0\.05 s") as caught:
        await read(part(b"a", more=True))
    assert caught.value.status == 408


async def test_reader_that_stopped_reading_is_gone():
    gone = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(asyncio.sleep(60))
    asyncio.get_running_loop().call_soon(gone.set_result, None)
    assert not await until(task, gone=gone)
    assert task.cancelled()


async def test_completed():
    assert await until(asyncio.create_task(asyncio.sleep(0)))


async def test_completed_although_more_of_the_request_comes():
    task = asyncio.create_task(asyncio.sleep(0.01))
    assert await until(task, part(b""))


async def test_task_is_cancelled_when_the_client_leaves():
    task = asyncio.create_task(asyncio.sleep(60))
    assert not await until(task, GONE)
    assert task.cancelled()


async def test_error_of_the_task_is_raised():
    async def fail():
        raise KeyError("x")

    with pytest.raises(KeyError):
        await until(asyncio.create_task(fail()))


async def test_server_that_tells_of_the_client_by_an_error():
    async def fail():
        raise BrokenPipeError

    assert not await until(asyncio.create_task(fail()))


async def test_task_is_cancelled_with_its_waiter():
    task = asyncio.create_task(asyncio.sleep(60))
    waiting = asyncio.create_task(until(task))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert task.cancelled()
