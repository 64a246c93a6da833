"""The stock OpenAI SDK, of whichever major version is installed: 1, 2 or 3."""

import asyncio

import openai
import pytest
from fakes.world import TEXT

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
PROMPT = {"model": "tiny", "prompt": "2+2="}


@pytest.fixture
def stock(url):
    with openai.OpenAI(base_url=url, api_key="k", max_retries=0) as client:
        yield client


def chat(client):
    return client.chat.completions.create(**CHAT).choices[0].message.content


def chat_stream(client):
    chunks = client.chat.completions.create(**CHAT, stream=True)
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


@pytest.mark.parametrize("way", [chat, chat_stream])
def test_chat(gateway, stock, way):
    assert way(stock) == TEXT


def test_streaming_helper(gateway, stock):
    # It was still called beta in 1.
    place = stock if hasattr(stock.chat.completions, "stream") else stock.beta
    with place.chat.completions.stream(**CHAT) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == TEXT


def test_completion(gateway, stock):
    assert stock.completions.create(**PROMPT).choices[0].text == "4"


def test_completion_stream(gateway, stock):
    chunks = stock.completions.create(**PROMPT, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == "4"


def test_async(gateway, url):
    async def ask():
        async with openai.AsyncOpenAI(base_url=url, api_key="k") as client:
            whole = await client.chat.completions.create(**CHAT)
            chunks = await client.chat.completions.create(**CHAT, stream=True)
            parts = [c.choices[0].delta.content or "" async for c in chunks]
            return whole.choices[0].message.content, "".join(parts)

    assert asyncio.run(ask()) == (TEXT, TEXT)


@pytest.mark.parametrize("way", [chat, chat_stream])
def test_the_default_delivery_of_the_real_gateway(real_gateway, way):
    def ask(url):
        with openai.OpenAI(base_url=url, api_key="k", max_retries=0) as client:
            return way(client)

    real_gateway.check(way, ask)


def test_the_comment_was_there(gateway, stock):
    """Else the rows above would show nothing."""
    with stock.chat.completions.with_streaming_response.create(
        **CHAT, stream=True
    ) as response:
        assert b"\n: attestation " in b"".join(response.iter_bytes())
        assert response.headers["attestation-id"]
