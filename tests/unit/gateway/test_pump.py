"""Pieces of a stream on their way from the engine to the client."""

import asyncio

import pytest

from attest.dialects import Dialect
from attest.transcript import Transcript
from gateway.errors import UpstreamError
from gateway.pump import Pump
from gateway.stream import StreamRelay

EVENTS = [b'data: {"choices": [], "id": "%d"}\n\n' % number for number in range(5)]
DONE = b"data: [DONE]\n\n"


class Source:
    """Gives pieces to a sink as long as it wants them; then it breaks off or ends."""

    def __init__(self, *pieces, failure=None):
        self.left, self.failure, self.calls = list(pieces), failure, 0

    async def pour(self, sink):
        self.calls += 1
        while self.left:
            if not sink(self.left.pop(0)):
                return False
        if self.failure is not None:
            raise self.failure
        return True


class Client:
    """A connection that keeps pace, or does not."""

    def __init__(self, *, keeps_pace=True):
        self.got, self.keeps_pace, self.waits = [], keeps_pace, 0

    def write(self, piece):
        self.got.append(piece)
        return self.keeps_pace

    async def send(self, message):
        self.waits += 1
        assert message["more_body"]
        if message["body"]:
            self.got.append(message["body"])


def never():
    raise AssertionError("nobody took that long")


async def run(source, client, *, writes=True):
    relay = StreamRelay(Transcript(Dialect.CHAT), Dialect.CHAT)
    write = client.write if writes else None
    pump = Pump(relay, client.send, write, seconds=60, give_up=never)
    await pump.run(source.pour)
    return relay


async def test_client_that_keeps_pace_is_never_waited_for():
    source, client = Source(*EVENTS), Client()
    await run(source, client)
    assert (client.got, client.waits, source.calls) == (EVENTS, 0, 1)


async def test_slow_client_is_waited_for_after_each_piece():
    source, client = Source(*EVENTS), Client(keeps_pace=False)
    await run(source, client)
    assert client.got == EVENTS
    assert client.waits == len(EVENTS)


async def test_other_servers_get_the_same_pieces_by_send():
    client = Client()
    await run(Source(*EVENTS), client, writes=False)
    assert client.got == EVENTS


@pytest.mark.parametrize("writes", [True, False])
async def test_nothing_is_taken_after_the_terminal_event(writes):
    source, client = Source(EVENTS[0], DONE, EVENTS[1]), Client()
    relay = await run(source, client, writes=writes)
    assert relay.ended
    assert client.got == EVENTS[:1]
    assert source.left == [EVENTS[1]]


@pytest.mark.parametrize("writes", [True, False])
async def test_what_came_before_the_break_is_sent(writes):
    client = Client()
    with pytest.raises(UpstreamError, match="broke off"):
        await run(Source(*EVENTS, failure=UpstreamError("broke off")), client)
    assert client.got == EVENTS


@pytest.mark.parametrize("writes", [True, False])
async def test_events_before_one_beyond_bounds_are_sent(writes, monkeypatch):
    monkeypatch.setattr("attest.sse.MAX_EVENT", 64)
    source, client = Source(EVENTS[0] + b"data: " + b"x" * 80, EVENTS[1]), Client()
    with pytest.raises(UpstreamError, match="beyond bounds"):
        await run(source, client, writes=writes)
    assert client.got == EVENTS[:1]


async def test_client_that_takes_too_long_for_a_piece_is_given_up():
    given_up = asyncio.Event()

    async def send(message):
        await asyncio.Event().wait()

    relay = StreamRelay(Transcript(Dialect.CHAT), Dialect.CHAT)
    pump = Pump(relay, send, seconds=0.01, give_up=given_up.set)
    running = asyncio.create_task(pump.run(Source(*EVENTS).pour))
    async with asyncio.timeout(5):
        await given_up.wait()
    assert not running.done()  # whoever is told cancels it
    running.cancel()
    await asyncio.wait({running})
