"""The stock OpenAI SDK through the gateway: as if it were not there."""

from pathlib import Path

import openai
import pytest
from fakes.gateway import running_gateway
from fakes.upstream import RESET, Answer, chunk, head, json_answer, sse

VECTORS = Path(__file__).parents[1] / "vectors" / "vllm-0.32"
MESSAGES = [{"role": "user", "content": "hello"}]


def vector(name):
    raw = (VECTORS / name).read_bytes()
    # The streaming helper of the SDK raises on an answer cut by max_tokens.
    return raw.replace(b'"finish_reason":"length"', b'"finish_reason":"stop"')


BODY = vector("chat.response.json")
STREAM = vector("chat_stream.response.sse")
USAGE = vector("chat_stream_usage.response.sse")
FIRST = STREAM[: STREAM.index(b"\n\n") + 2]
TEXT = "\u0007\u0000\ufffdmo a\ufffd%h"


@pytest.fixture
async def gateway(tmp_path):
    async with running_gateway(tmp_path) as running:
        yield running


@pytest.fixture
async def sdk(gateway):
    url = f"http://127.0.0.1:{gateway.port}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="x", max_retries=0) as client:
        yield client


def ask(sdk, **more):
    return sdk.chat.completions.create(model="tiny", messages=MESSAGES, **more)


async def text_of(stream):
    choices = [chunk.choices[0] async for chunk in stream if chunk.choices]
    return "".join(choice.delta.content or "" for choice in choices)


async def test_answer(gateway, sdk):
    gateway.engine.answer(json_answer(BODY))
    assert (await ask(sdk)).choices[0].message.content == TEXT


async def test_answer_with_its_headers(gateway, sdk):
    gateway.engine.answer(json_answer(BODY))
    raw = await sdk.chat.completions.with_raw_response.create(
        model="tiny", messages=MESSAGES
    )
    assert raw.headers["attestation-id"] == gateway.exchange.id


@pytest.mark.parametrize("recorded", [STREAM, USAGE])
async def test_stream(gateway, sdk, recorded):
    gateway.engine.answer(sse(recorded))
    stream = await ask(sdk, stream=True)
    assert await text_of(stream) == TEXT
    assert stream.response.headers["attestation-id"] == gateway.exchange.id


async def test_streaming_helper(gateway, sdk):
    gateway.engine.answer(sse(USAGE))
    async with sdk.chat.completions.stream(model="tiny", messages=MESSAGES) as stream:
        completion = await stream.get_final_completion()
    assert completion.choices[0].message.content == TEXT


async def test_completions(gateway, sdk):
    gateway.engine.answer(sse(vector("completion_stream.response.sse")))
    stream = await sdk.completions.create(model="tiny", prompt="a", stream=True)
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].finish_reason == "stop"


async def test_error_in_a_stream_is_raised(gateway, sdk):
    error = b'data: {"error": {"message": "boom", "type": "E", "code": 500}}\n\n'
    gateway.engine.answer(sse(FIRST, error, b"data: [DONE]\n\n"))
    with pytest.raises(openai.APIError, match="boom"):
        await text_of(await ask(sdk, stream=True))


async def test_broken_stream_is_raised(gateway, sdk):
    gateway.engine.answer(Answer([head(), chunk(STREAM[:600]), RESET]))
    with pytest.raises(openai.APIConnectionError):
        await text_of(await ask(sdk, stream=True))


@pytest.mark.parametrize("n", ["2", 0])
async def test_refusal_is_raised(sdk, n):
    with pytest.raises(openai.BadRequestError, match=r"n: ") as caught:
        await ask(sdk, n=n)
    assert caught.value.param == "n"


async def test_models(gateway, sdk):
    gateway.engine.answer(json_answer(vector("models.response.json")))
    assert [model.id async for model in sdk.models.list()] == ["tiny"]
