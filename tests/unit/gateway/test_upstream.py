import asyncio
import inspect
import socket
import ssl

import pytest
import trustme
import uvloop
from fakes.gateway import eventually
from fakes.upstream import (
    CLOSE,
    HANG,
    LAST,
    RESET,
    Answer,
    ScriptedEngine,
    chunk,
    head,
    json_answer,
    sse,
)

from gateway.errors import UpstreamDownError, UpstreamError
from gateway.upstream import HttpUpstream


@pytest.fixture
async def engine(tmp_path):
    engine = ScriptedEngine()
    await engine.start(tmp_path / "e.sock")
    yield engine
    await engine.stop()


@pytest.fixture
async def upstream(tmp_path, engine):
    upstream = HttpUpstream(uds=str(tmp_path / "e.sock"), read_seconds=0.2)
    yield upstream
    await upstream.aclose()


async def post(upstream, body=b"{}"):
    return await upstream.open("POST", "/x", headers={"a": "b"}, body=body)


async def read(response):
    return b"".join([piece async for piece in response.aiter_raw()])


async def test_answer(engine, upstream):
    engine.answer(json_answer(b"hello", 201, X_Odd="\xe9"))
    response = await post(upstream)
    assert response.status == 201
    assert response.headers["x-odd"] == "\xe9"
    assert await read(response) == b"hello"
    await response.aclose()
    assert engine.requests[0].headers == {
        "host": "engine",
        "a": "b",
        "content-length": "2",
    }


async def test_redirect_is_not_followed(engine, upstream):
    engine.answer(json_answer(b"", 307, location="http://engine/sleep"))
    response = await post(upstream)
    assert response.status == 307
    await response.aclose()
    assert len(engine.requests) == 1


async def test_proxy_of_the_environment_is_not_used(engine, upstream, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    engine.answer(json_answer(b"{}"))
    response = await post(upstream)
    assert response.status == 200
    await response.aclose()


async def test_no_engine(tmp_path):
    upstream = HttpUpstream(uds=str(tmp_path / "none"))
    with pytest.raises(UpstreamDownError) as caught:
        await post(upstream)
    assert caught.value.status == 503
    await upstream.aclose()


async def test_no_tls(tmp_path, engine):
    upstream = HttpUpstream(uds=str(tmp_path / "e.sock"), base_url="https://engine")
    with pytest.raises(UpstreamDownError):
        await post(upstream)
    await upstream.aclose()


async def test_silence_within_an_answer(engine, upstream):
    engine.answer(Answer([head(), chunk(b"data: 1\n\n"), HANG]))
    response = await post(upstream)
    with pytest.raises(UpstreamError, match="in time") as caught:
        await read(response)
    assert caught.value.status == 504
    await response.aclose()


async def test_time_out_is_not_tried_again(engine, upstream):
    engine.answer(json_answer(b"{}"))
    first = await post(upstream)
    await read(first)
    await first.aclose()
    engine.answer(Answer([HANG]))
    with pytest.raises(UpstreamError, match="in time"):
        await post(upstream)
    assert len(engine.requests) == 2


async def test_answer_that_was_not_read_costs_its_connection(engine, upstream):
    engine.answer(sse(b"data: 1\n\n"))
    response = await post(upstream)
    await response.aclose()
    response = await post(upstream)
    await read(response)
    await response.aclose()
    assert engine.connections == 2


async def ask(upstream, body=b"{}"):
    """One request to its end, and its connection given back."""
    response = await post(upstream, body)
    data = await read(response)
    await response.aclose()
    return data


# Keeping connections.


async def test_connection_is_used_again(engine, upstream):
    engine.answer(json_answer(b"a"), sse(b"b"), json_answer(b"c"))
    assert [await ask(upstream) for _ in range(3)] == [b"a", b"b", b"c"]
    assert engine.connections == 1


async def test_each_request_at_a_time_has_its_own_connection(engine, upstream):
    engine.answer(json_answer(b"a"))
    responses = [await post(upstream) for _ in range(5)]
    for response in responses:
        assert await read(response) == b"a"
        await response.aclose()
    assert engine.connections == 5
    await ask(upstream)
    assert engine.connections == 5


@pytest.mark.parametrize("fields", [{"connection": "close"}])
async def test_connection_that_the_engine_gives_up_is_not_used_again(
    engine, upstream, fields
):
    engine.answer(json_answer(b"a", **fields))
    await ask(upstream)
    await ask(upstream)
    assert engine.connections == 2


async def test_idle_connection_is_closed_in_time(engine, upstream, monkeypatch):
    monkeypatch.setattr("gateway.upstream._KEEPALIVE_SECONDS", 0.02)
    engine.answer(json_answer(b"a"))
    await asyncio.gather(*(ask(upstream) for _ in range(3)))
    await asyncio.wait_for(engine.all_closed.wait(), 5)
    assert await ask(upstream) == b"a"


async def test_idle_connection_that_grew_old_is_not_used(engine, upstream, monkeypatch):
    engine.answer(json_answer(b"a"))
    await ask(upstream)
    monkeypatch.setattr("gateway.upstream._KEEPALIVE_SECONDS", 0.0)
    await ask(upstream)
    assert engine.connections == 2


async def test_second_try_is_on_a_new_connection(engine, upstream):
    """Two idle connections, and the engine has just dropped both."""
    engine.answer(json_answer(b"a"))
    await asyncio.gather(ask(upstream), ask(upstream))
    engine.answer(Answer([CLOSE]), json_answer(b"b"))
    assert await ask(upstream) == b"b"
    assert engine.connections == 3
    assert len(engine.requests) == 4


@pytest.mark.parametrize("first", [b"H", head(content_length=3), b"\0"])
async def test_no_second_try_once_a_byte_has_come(engine, upstream, first):
    engine.answer(json_answer(b"a"))
    await ask(upstream)
    engine.answer(Answer([first, RESET]), json_answer(b"b"))
    with pytest.raises(UpstreamError):
        await ask(upstream)
    assert len(engine.requests) == 2


async def test_bytes_on_an_idle_connection_close_it(engine, upstream):
    go_on = asyncio.Event()
    engine.answer(Answer([*json_answer(b"a").steps, go_on, b"HTTP/1.1 200", HANG]))
    await ask(upstream)
    go_on.set()
    await asyncio.wait_for(engine.all_closed.wait(), 5)
    engine.answer(json_answer(b"b"))
    assert await ask(upstream) == b"b"
    assert len(engine.requests) == 2


async def test_answer_that_is_whole_stands_whatever_follows(engine, upstream):
    """The engine goes on, or away, before the answer was read here."""
    for after in (b"HTTP/1.1 200 OK\r\n\r\n", RESET):
        go_on = asyncio.Event()
        engine.answer(Answer([*json_answer(b"hello").steps, go_on, after, CLOSE]))
        response = await post(upstream)
        go_on.set()
        await asyncio.wait_for(engine.all_closed.wait(), 5)
        assert await read(response) == b"hello"
        await response.aclose()


# Waiting.


async def test_body_that_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.upstream._WRITE_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "deaf.sock"))
        deaf.listen()
        upstream = HttpUpstream(uds=str(tmp_path / "deaf.sock"))
        with pytest.raises(UpstreamError, match="in time") as caught:
            await post(upstream, b"x" * 5_000_000)
        assert caught.value.status == 504
        await upstream.aclose()


async def test_large_bodies_both_ways(engine, upstream):
    body = bytes(range(256)) * 20_000
    engine.answer(json_answer(body))
    assert await ask(upstream, body) == body
    assert engine.requests[0].body == body


async def test_silence_counts_from_byte_to_byte(engine, upstream):
    """Many small silences are no large one."""
    pieces = []
    for byte in json_answer(b"hello").steps:
        pieces += [byte[i : i + 12] for i in range(0, len(byte), 12)]
    pauses = [asyncio.Event() for _ in pieces]

    async def dribble():
        for pause in pauses:
            await asyncio.sleep(0.06)
            pause.set()

    steps = [step for pair in zip(pauses, pieces, strict=True) for step in pair]
    engine.answer(Answer(steps))
    dribbling = asyncio.create_task(dribble())
    assert await ask(upstream) == b"hello"
    await dribbling


class Sink:
    """Takes so many pieces, then wants no more."""

    def __init__(self, wants=10**9):
        self.pieces, self.wants = [], wants

    def __call__(self, piece):
        self.pieces.append(piece)
        return len(self.pieces) < self.wants


async def test_poured_body_comes_in_the_moment_it_is_there(engine, upstream):
    later = asyncio.Event()
    engine.answer(Answer([head(), chunk(b"a"), later, chunk(b"b"), LAST]))
    response, sink = await post(upstream), Sink()
    pouring = asyncio.create_task(response.pour(sink))
    await eventually(lambda: sink.pieces == [b"a"])
    later.set()
    assert await pouring
    assert sink.pieces == [b"a", b"b"]
    await response.aclose()
    await ask(upstream)
    assert engine.connections == 1


async def test_poured_body_waits_while_its_sink_wants_no_more(engine, upstream):
    piece = b"x" * 50_000
    engine.answer(Answer([head(), *[chunk(piece)] * 200, LAST]))
    response, sink = await post(upstream), Sink(wants=1)
    assert not await response.pour(sink)
    await asyncio.sleep(0.4)  # twice the longest silence, which it is not
    (link,) = upstream._open
    assert sum(map(len, link.reader.body)) < 1_000_000
    assert len(sink.pieces) == 1
    sink.wants = 10**9
    assert await response.pour(sink)
    assert b"".join(sink.pieces) == 200 * piece


async def test_poured_body_that_breaks_off_was_given_so_far(engine, upstream):
    for end in (CLOSE, RESET):
        engine.answer(Answer([head(), chunk(b"a"), end]))
        response, sink = await post(upstream), Sink()
        with pytest.raises(UpstreamError, match="broke off"):
            await response.pour(sink)
        assert sink.pieces == [b"a"]
        await response.aclose()


async def test_poured_body_of_an_engine_that_falls_silent(engine, upstream):
    engine.answer(Answer([head(), chunk(b"a"), HANG]))
    response = await post(upstream)
    with pytest.raises(UpstreamError, match="in time"):
        await response.pour(Sink())
    await response.aclose()


async def test_sink_gets_nothing_once_its_caller_has_left(engine, upstream):
    later = asyncio.Event()
    engine.answer(Answer([head(), chunk(b"a"), later, chunk(b"b"), LAST]))
    response, sink = await post(upstream), Sink()
    pouring = asyncio.create_task(response.pour(sink))
    await eventually(lambda: sink.pieces == [b"a"])
    pouring.cancel()
    await asyncio.wait({pouring})
    later.set()
    (link,) = upstream._open
    await eventually(lambda: link.reader is None or link.reader.body)
    assert sink.pieces == [b"a"]
    await response.aclose()


async def test_engine_waits_for_a_slow_reader(engine, upstream):
    """It can't send more than a few buffers ahead, and all of it comes in the end."""
    piece = b"x" * 50_000
    engine.answer(Answer([head(), *[chunk(piece)] * 200, LAST]))
    response = await post(upstream)
    body = response.aiter_raw()
    taken = len(await anext(body))
    await asyncio.sleep(0.4)  # twice the longest silence, which it is not
    (link,) = upstream._open
    assert sum(map(len, link.reader.body)) < 1_000_000
    async for data in body:
        taken += len(data)
    assert taken == 200 * len(piece)
    await response.aclose()
    await ask(upstream)
    assert engine.connections == 1


async def test_whole_body_at_its_bound(engine, upstream):
    engine.answer(json_answer(b"hello"), sse(b"he", b"llo"))
    for _ in range(2):
        response = await post(upstream)
        assert await response.read(5) == b"hello"
        await response.aclose()
    assert engine.connections == 1


async def test_body_beyond_its_bound_takes_the_connection_with_it(engine, upstream):
    engine.answer(json_answer(b"hello"), sse(b"he", b"llo"))
    for _ in range(2):
        response = await post(upstream)
        with pytest.raises(UpstreamError, match="larger than 4 bytes"):
            await response.read(4)
        await response.aclose()
        await asyncio.wait_for(engine.all_closed.wait(), 5)
    assert engine.connections == 2


async def test_whole_body_that_breaks_off(engine, upstream):
    engine.answer(Answer([head(content_length=5), b"he", CLOSE]))
    response = await post(upstream)
    with pytest.raises(UpstreamError, match="broke off"):
        await response.read(5)
    await response.aclose()


# Ending.


async def test_cancelled_request_leaves_no_connection(engine, upstream):
    engine.answer(Answer([HANG]))
    asking = [asyncio.create_task(post(upstream)) for _ in range(20)]
    await eventually(lambda: len(engine.requests) == 20)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await asyncio.wait_for(engine.all_closed.wait(), 5)
    assert not upstream._open


async def test_request_cancelled_at_any_moment_leaves_no_connection(engine, upstream):
    engine.answer(json_answer(b"a"))
    for turns in range(20):
        asking = asyncio.create_task(ask(upstream))
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    assert await ask(upstream) == b"a"
    assert len(upstream._open) <= 1 + len(upstream._idle)
    await upstream.aclose()
    await asyncio.wait_for(engine.all_closed.wait(), 5)


async def test_aclose_closes_what_is_busy_and_what_is_idle(engine, upstream):
    engine.answer(json_answer(b"a"), json_answer(b"a"), Answer([head(), HANG]))
    await ask(upstream)
    first = await post(upstream)
    busy = await post(upstream)
    await first.aclose()
    await upstream.aclose()
    assert not upstream._open
    with pytest.raises(UpstreamError, match="broke off"):
        await read(busy)
    await busy.aclose()
    await asyncio.wait_for(engine.all_closed.wait(), 5)


async def test_socket_whose_queue_is_full(tmp_path):
    """The kernel refuses at once there; it is no reason to refuse the client."""
    engine = ScriptedEngine()
    await engine.start(tmp_path / "e.sock")
    engine._server.sockets[0]._sock.listen(0)
    engine.answer(json_answer(b"a"))
    upstream = HttpUpstream(uds=str(tmp_path / "e.sock"))
    assert await asyncio.gather(*(ask(upstream) for _ in range(20))) == [b"a"] * 20
    await upstream.aclose()
    await engine.stop()


# TCP and TLS.


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


async def serve(engine, context=None):
    engine._server = await asyncio.start_server(
        engine._serve, "127.0.0.1", 0, ssl=context
    )
    return engine._server.sockets[0].getsockname()[1]


async def test_tcp(monkeypatch):
    engine = ScriptedEngine()
    port = await serve(engine)
    engine.answer(json_answer(b"a"))
    upstream = HttpUpstream(base_url=f"http://127.0.0.1:{port}/vllm/")
    assert await ask(upstream) == b"a"
    (request,) = engine.requests
    assert (request.path, request.headers["host"]) == ("/vllm/x", f"127.0.0.1:{port}")
    await upstream.aclose()
    await engine.stop()
    with pytest.raises(UpstreamDownError):
        await ask(upstream)


@pytest.mark.parametrize(("name", "ours"), [("localhost", True), ("other", False)])
async def test_tls(monkeypatch, authority, name, ours):
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(theirs)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    monkeypatch.setattr("ssl.create_default_context", lambda: trusting)
    engine = ScriptedEngine()
    port = await serve(engine, theirs)
    engine.answer(json_answer(b"a" * 300_000))
    upstream = HttpUpstream(base_url=f"https://localhost:{port}")
    if ours:
        assert len(await ask(upstream)) == len(await ask(upstream)) == 300_000
        assert engine.connections == 1
    else:
        with pytest.raises(UpstreamDownError):
            await ask(upstream)
        assert engine.requests == []
    await upstream.aclose()
    await engine.stop()


# All of it again on the loop that the process runs on, whose transports differ.

SCENARIOS = [
    value
    for name, value in list(globals().items())
    if name.startswith("test_")
    and value is not test_socket_whose_queue_is_full  # it reaches into asyncio's server
    and {"first", "fields"}.isdisjoint(inspect.signature(value).parameters)
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda test: test.__name__)
def test_on_uvloop(tmp_path, monkeypatch, authority, scenario):
    async def run():
        engine = ScriptedEngine()
        await engine.start(tmp_path / "e.sock")
        upstream = HttpUpstream(uds=str(tmp_path / "e.sock"), read_seconds=0.2)
        given = {
            "authority": authority,
            "engine": engine,
            "monkeypatch": monkeypatch,
            "name": "localhost",
            "ours": True,
            "tmp_path": tmp_path,
            "upstream": upstream,
        }
        wanted = inspect.signature(scenario).parameters
        if "engine" not in wanted:  # it starts its own, maybe in the same place
            await engine.stop()
            (tmp_path / "e.sock").unlink(missing_ok=True)
        await scenario(**{name: given[name] for name in wanted})
        await upstream.aclose()
        if "engine" in wanted:
            await engine.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
