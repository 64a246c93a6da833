"""A request to a row is answered as uvicorn itself would answer it."""

import asyncio
import gc
from functools import partial
from itertools import pairwise

import pytest
from fakes.gateway import CHAT, eventually
from fakes.served_app import Served, post
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.asgi import WHOLE, WRITE, send_body
from gateway.connection import connection_class
from gateway.turn import Turn

ELSEWHERE = "/not/a/row"


def answering(*messages):
    """An application that reads the body, then sends this."""

    async def app(scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        for message in messages:
            await send(message)

    return app


def at_once(*fields, status=200, then=()):
    """An application that sends a whole answer at once where it can."""

    async def app(scope, receive, send):
        answer = scope.get("extensions", {}).get(WHOLE, {}).get("answer")
        answer = answer or partial(send_body, send)
        await answer(status, fields, b"hello")
        for message in then:
            await send(message)

    return app


def passing_on(*pieces):
    """An application that sends a stream, each piece without waiting where it can."""

    async def app(scope, receive, send):
        await send(start())
        write = scope.get("extensions", {}).get(WRITE, {}).get("now")
        for one in pieces:
            if write is None:
                await send(piece(one, more=True))
            elif not write(one):
                await send(piece(b"", more=True))
        await send(piece(b"", more=False))

    return app


async def echo_taken(scope, receive, send):
    """Takes what is there at once, and reads on where that is not all."""
    whole = scope.get("extensions", {}).get(WHOLE)
    body = None if whole is None else whole["take"]()
    if body is None:
        await echo(scope, receive, send)
        return
    assert whole["take"]() is None

    async def nothing_more():
        return piece(b"", more=False)

    scope = {**scope, "path": scope["path"] + body.decode()}
    await echo(scope, nothing_more, send)


async def echo(scope, receive, send):
    body, pieces, more = b"", 0, True
    while more:
        message = await receive()
        body, more, pieces = body + message["body"], message["more_body"], pieces + 1
    target = scope["path"].encode() + scope["raw_path"] + scope["query_string"]
    await send(start((b"content-length", b"%d" % (len(target) + len(body)))))
    await send(piece(target + body, more=False))


def start(*fields, status=200):
    return {"type": "http.response.start", "status": status, "headers": list(fields)}


def piece(body, *, more):
    return {"type": "http.response.body", "body": body, "more_body": more}


async def both(app, *conversations):
    """What ours and uvicorn's say in each of some conversations."""
    said = []
    for http in (connection_class(5), "httptools"):
        async with Served(app, http) as served:
            said.append([await served.say(*writes) for writes in conversations])
    return said


LENGTH = (b"content-length", b"5")
ANSWERS = {
    "whole": [start(LENGTH), piece(b"hello", more=False)],
    "whole in two pieces": [
        start(LENGTH),
        piece(b"he", more=True),
        piece(b"llo", more=False),
    ],
    "stream": [start(), piece(b"a", more=True), piece(b"b", more=False)],
    "stream with an empty piece": [
        start(),
        piece(b"", more=True),
        piece(b"b", more=True),
        piece(b"", more=False),
    ],
    "nothing": [start((b"content-length", b"0")), piece(b"", more=False)],
    "error": [start(LENGTH, status=429), piece(b"later", more=False)],
    "asks to close": [
        start(LENGTH, (b"connection", b"close")),
        piece(b"hello", more=False),
    ],
    "too long": [start(LENGTH), piece(b"hello you", more=False)],
    "too short": [start(LENGTH), piece(b"hell", more=False)],
    "goes on after its end": [
        start(LENGTH),
        piece(b"hello", more=False),
        piece(b"x", more=False),
    ],
    "no end": [start(), piece(b"a", more=True)],
    "nothing at all": [],
}
REQUESTS = {
    "one write": [post(CHAT, b"body")],
    "asked to close": [post(CHAT, b"body", b"connection: close")],
    "old protocol": [post(CHAT, b"body", version=b"1.0")],
    "two in one write": [post(CHAT, b"a") + post(CHAT, b"b")],
    "another method": [b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n" % CHAT.encode()],
    "expects to be told": [post(CHAT, b"body", b"expect: 100-continue")],
    "upgrade": [post(CHAT, b"body", b"connection: upgrade", b"upgrade: h2c")],
    "no HTTP": [b"POST " + CHAT.encode() + b"\r\n\r\n"],
}


@pytest.mark.parametrize("answer", ANSWERS)
async def test_answers_are_uvicorns_to_the_byte(answer):
    ours, theirs = await both(answering(*ANSWERS[answer]), *REQUESTS.values())
    if answer in ("too long", "too short"):
        # Where it shows at once, ours sends nothing of it.
        assert all(b.startswith(a) for a, b in zip(ours, theirs, strict=True) if a)
        assert all(b"\r\n\r\nhello" not in said for said in ours)
        return
    assert dict(zip(REQUESTS, ours, strict=True)) == dict(
        zip(REQUESTS, theirs, strict=True)
    )


@pytest.mark.parametrize(
    "app",
    [
        at_once((b"x", b"y")),
        at_once((b"connection", b"close")),
        at_once(status=429),
        at_once(then=[piece(b"more", more=False)]),
    ],
)
async def test_answers_at_once_are_uvicorns_to_the_byte(app):
    ours, theirs = await both(app, *REQUESTS.values())
    assert ours == theirs
    assert any(said.endswith(b"hello") for said in ours)


async def test_pieces_that_are_not_waited_for_are_uvicorns_to_the_byte():
    app = passing_on(b"a", b"", b"b" * 300_000, b"c")
    ours, theirs = await both(
        app, [post(CHAT)], [post(CHAT, b"", b"connection: close")]
    )
    assert ours == theirs
    assert b"b" * 300_000 in ours[0]


async def test_client_that_does_not_read_does_not_keep_pace():
    told = []

    async def app(scope, receive, send):
        await send(start())
        write = scope["extensions"][WRITE]["now"]
        told.extend(write(b"x" * 100_000) for _ in range(200))
        await asyncio.sleep(3600)

    async with Served(app, connection_class(5)) as served:
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(post(CHAT))
        await eventually(lambda: len(told) == 200)
        assert told[0]
        assert not told[-1]
        writer.close()


async def test_answer_at_once_does_not_follow_another():
    async def app(scope, receive, send):
        answer = scope["extensions"][WHOLE]["answer"]
        await answer(200, [], b"one")
        with pytest.raises(RuntimeError, match="begun already"):
            await answer(200, [], b"two")

    async with Served(app, connection_class(5)) as served:
        assert (await served.say(post(CHAT))).endswith(b"\r\n\r\none")


async def test_request_leaves_nothing_to_the_garbage_collector():
    async with Served(at_once(), connection_class(5)) as served:
        gc.collect()
        gc.disable()
        try:
            await served.say(*[post(CHAT, b"body")] * 3)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            # The last one lives as long as its connection, which uvicorn's cycles hold.
            assert sum(isinstance(found, Turn) for found in gc.garbage) <= 1
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()


async def test_body_is_taken_once_and_only_whole():
    app = connection_class(5)
    async with Served(echo_taken, app) as served:
        one = await served.say(post(CHAT, b"body"))
        two = await served.say(post(CHAT, b"body")[:-1], b"y")
    path = CHAT.encode()
    assert one.endswith(path + b"body" + path)  # taken
    assert two.endswith(path + path + b"body")  # read


async def test_what_the_application_sees_of_the_target():
    targets = [CHAT, ELSEWHERE, CHAT + "?a=b", CHAT + "%20"]
    ours, theirs = await both(echo, *([post(target, b"body")] for target in targets))
    assert ours == theirs
    assert all(said.endswith(b"body") for said in ours)


REQUEST = post(CHAT, b"x" * 40) + post(CHAT, b"y")
EDGES = st.lists(st.integers(0, len(REQUEST)), max_size=4).map(sorted)


@settings(max_examples=3)
@given(st.lists(EDGES, min_size=12, max_size=12))
def test_requests_however_they_are_cut(many):
    conversations = [
        [REQUEST[a:b] for a, b in pairwise([0, *edges, len(REQUEST)])] for edges in many
    ]
    ours, theirs = asyncio.run(both(echo, *conversations))
    assert ours == theirs


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb", b"a\0b"])
async def test_field_that_would_end_its_line_is_not_sent(value):
    in_two = answering(start((b"x", value), LENGTH), piece(b"hello", more=False))
    for app in (in_two, at_once((b"x", value))):
        [ours], _ = await both(app, [post(CHAT)])
        assert b"set-cookie" not in ours
        assert not ours.startswith(b"HTTP/1.1 200")


async def test_head_of_a_stream_goes_out_before_its_first_piece():
    later = asyncio.Event()

    async def app(scope, receive, send):
        await send(start())
        await later.wait()
        await send(piece(b"x", more=False))

    async with Served(app, connection_class(5)) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(post(CHAT))
        async with asyncio.timeout(2):
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        later.set()
        writer.close()


async def test_head_and_a_first_piece_that_is_there_are_one_write(monkeypatch):
    written, app = (
        [],
        answering(start(), piece(b"a", more=True), piece(b"", more=False)),
    )

    class Watched(connection_class(5)):
        def connection_made(self, transport):
            super().connection_made(transport)
            monkeypatch.setattr(transport, "write", written.append)

    async with Served(app, Watched) as served:
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(post(CHAT))
        await eventually(lambda: len(written) == 2)
        writer.close()
    assert written[0].startswith(b"HTTP/1.1 200 OK\r\n")
    assert written[0].endswith(b"\r\n\r\n1\r\na\r\n")
    assert written[1] == b"0\r\n\r\n"


async def test_application_is_told_that_the_client_left():
    told = asyncio.Event()

    async def app(scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass
        told.set()

    async with Served(app, connection_class(5)) as served:
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(post(CHAT, b"body"))
        await asyncio.sleep(0.05)
        writer.transport.abort()
        async with asyncio.timeout(2):
            await told.wait()


async def test_slow_reader_holds_the_application_back():
    sent = []

    async def app(scope, receive, send):
        await send(start())
        for _ in range(200):
            await send(piece(b"x" * 100_000, more=True))
            sent.append(1)

    async with Served(app, connection_class(5)) as served:
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.transport.pause_reading()
        writer.write(post(CHAT))
        await asyncio.sleep(0.3)
        assert len(sent) < 150
        writer.transport.abort()
