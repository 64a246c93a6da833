"""The channel between a gateway and a worker: strict, bounded, in order."""

import asyncio
import json
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.errors import FormatError
from gateway.workers import channel, messages
from gateway.workers.channel import MAX_MESSAGE, Channel, FrameReader, frame

TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
SENT = st.one_of(
    st.builds(messages.Report, progress=TEXT),
    st.builds(messages.Stale, since=st.integers(0, 2**40), reason=TEXT),
    st.builds(messages.Ask, number=st.integers(0, 2**40)),
    st.just(messages.MayLoad()),
)


@pytest.fixture
async def ends():
    """What a worker hears, and a socket on which the test says it."""
    ours, theirs = socket.socketpair()
    heard = await Channel.over(ours, messages.ToWorker)
    theirs.setblocking(False)
    yield heard, theirs
    heard.close()
    theirs.close()


async def say(end, data):
    await asyncio.get_running_loop().sock_sendall(end, data)


def framed(value):
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return len(data).to_bytes(4) + data


@given(st.lists(SENT, max_size=6), st.lists(st.integers(1, 30), max_size=20))
def test_frames_arrive_whole_however_they_are_cut(sent, cuts):
    data = b"".join(map(frame, sent))
    reader, found = FrameReader(), []
    for size in [*cuts, len(data) + 1]:
        found += reader.feed(data[:size])
        data = data[size:]
    assert [json.loads(one) for one in found] == [m.model_dump() for m in sent]


@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_refused(data):
    reader = FrameReader()
    try:
        found = reader.feed(data)
    except FormatError:
        return
    assert sum(4 + len(one) for one in found) <= len(data)


def test_length_is_refused_before_anything_is_kept():
    with pytest.raises(FormatError, match="announces"):
        FrameReader().feed((MAX_MESSAGE + 1).to_bytes(4))


def test_message_that_is_too_large_is_not_sent(monkeypatch):
    monkeypatch.setattr(channel, "MAX_MESSAGE", 50)
    with pytest.raises(FormatError, match="not sent"):
        frame(messages.Report(progress="x" * 50))


async def test_messages_come_in_their_order(ends):
    heard, end = ends
    sent = [messages.Report(progress=str(n)) for n in range(5)]
    await say(end, b"".join(map(frame, sent)))
    assert [await heard.receive() for _ in sent] == sent


async def test_end_is_told_and_half_a_message_is_none(ends):
    heard, end = ends
    await say(end, frame(messages.MayLoad())[:-1])
    end.close()
    assert await heard.receive() is None


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"[]",
        b"null",
        b'{"kind": "rest", "kind": "rest"}',
        b'{"kind": "ask", "number": NaN}',
        b"\xff",
        {},
        {"kind": "unknown"},
        {"kind": "rest", "more": 1},
        {"kind": "ask", "number": "1"},
        {"kind": "ask", "number": True},
        {"kind": "report"},
        # What workers say is not what they hear.
        {"kind": "serving", "boot": "sha256:0"},
        json.loads("[" * 60 + "]" * 60),
        b"[" * 1000 + b"]" * 1000,
    ],
)
async def test_what_is_no_message_is_refused(ends, value):
    heard, end = ends
    await say(end, framed(value))
    with pytest.raises(FormatError):
        await heard.receive()


async def test_refusal_names_members_and_never_their_values(ends):
    heard, end = ends
    await say(end, framed({"kind": "report", "progress": ["a-secret"]}))
    with pytest.raises(FormatError) as caught:
        await heard.receive()
    assert "progress" in str(caught.value)
    assert "a-secret" not in str(caught.value)


async def test_nobody_at_the_other_end_is_no_error(ends):
    heard, end = ends
    end.close()
    assert await heard.receive() is None
    heard.close()
    heard.send(messages.MayLoad())
