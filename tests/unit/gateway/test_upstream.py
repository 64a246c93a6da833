import pytest
from fakes.upstream import HANG, Answer, ScriptedEngine, chunk, head, json_answer, sse

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
