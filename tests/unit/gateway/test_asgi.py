import asyncio

import pytest

from gateway.asgi import ClientGoneError, Patience, read_body
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


class Client:
    """What tells of a client that leaves: by a function, or by what is received."""

    def __init__(self, *messages, tells):
        self.listeners = []
        self.lost = self.tell if tells else None
        self.left = asyncio.Event()
        self.queue = list(messages)

    def tell(self, listener):
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def leave(self):
        self.left.set()
        for listener in list(self.listeners):
            listener()

    async def receive(self):
        if self.queue:
            return self.queue.pop(0)
        await self.left.wait()
        return GONE

    def patience(self, seconds=60):
        return Patience(seconds, self.receive, self.lost)


@pytest.fixture(params=[False, True], ids=["reading on", "told"])
def client(request):
    return Client(tells=request.param)


async def test_block_ends_by_itself(client):
    with client.patience():
        await asyncio.sleep(0)
    client.leave()
    await asyncio.sleep(0.01)  # nobody is cancelled by that
    assert client.listeners == []


async def test_block_ends_although_more_of_the_request_comes():
    client = Client(part(b""), tells=False)
    with client.patience():
        await asyncio.sleep(0.01)


async def test_block_ends_when_the_client_leaves(client):
    asyncio.get_running_loop().call_later(0.01, client.leave)
    with pytest.raises(ClientGoneError), client.patience():
        await asyncio.sleep(60)
    await asyncio.sleep(0)
    assert asyncio.current_task().cancelling() == 0
    assert client.listeners == []


async def test_block_ends_when_its_time_is_up(client):
    with pytest.raises(TimeoutError), client.patience(0.01):
        await asyncio.sleep(60)
    client.leave()
    await asyncio.sleep(0.01)


async def test_reader_that_stopped_reading_is_gone(client):
    with pytest.raises(ClientGoneError), client.patience() as patience:  # noqa: PT012
        asyncio.get_running_loop().call_soon(patience.leave)
        await asyncio.sleep(60)


async def test_client_that_leaves_twice_and_late(client):
    with pytest.raises(ClientGoneError), client.patience() as patience:  # noqa: PT012
        patience.leave()
        patience.leave()
        client.leave()
        await asyncio.sleep(60)
    patience.leave()


async def test_work_that_is_done_before_it_can_end_is_done(client):
    with client.patience() as patience:
        patience.leave()


async def test_nobody_is_cancelled_after_the_block(client):
    with client.patience() as patience:
        pass
    patience.leave()
    await asyncio.sleep(0.01)


async def test_time_that_is_up_as_the_client_leaves_is_one_end(client):
    asyncio.get_running_loop().call_later(0.01, client.leave)
    with pytest.raises((ClientGoneError, TimeoutError)), client.patience(0.01):
        await asyncio.sleep(60)
    await asyncio.sleep(0.02)
    assert asyncio.current_task().cancelling() == 0


async def test_error_of_the_work_is_raised(client):
    with pytest.raises(KeyError), client.patience():
        raise KeyError


async def test_cancellation_of_the_task_is_no_departure(client):
    async def work():
        with client.patience():
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert client.listeners == []


async def test_cancellation_and_departure_at_once_is_cancellation(client):
    async def work():
        with client.patience() as patience:
            patience.leave()
            asyncio.current_task().cancel()
            await asyncio.sleep(60)

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(work())
