"""The stock OpenAI and Anthropic SDKs on the verifying transports, sync and async.

Gateway, signatures, log of attestations and verifier are real; the engine's answers are
a script. Every answer is proven against its request before the SDK has it.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

import anthropic
import httpx2
import openai
import pytest
from fakes.answers import SPOKEN
from fakes.gateway import running_gateway
from fakes.sdk_calls import (
    CALLS,
    USER,
    answer_of,
    async_message,
    async_message_stream,
    message,
    message_stream,
    run,
)
from fakes.upstream import json_answer, sse
from fakes.world import NOW, make_world

from attest.client.anthropic import anthropic_client, async_anthropic_client
from attest.client.httpx2 import AsyncAttestTransport, AttestTransport
from attest.errors import ConfigurationError, PolicyError, VerificationError
from attest.policy import Policy
from gateway.attestations import Attester

VECTORS = Path(__file__).parents[1] / "vectors" / "vllm-0.32"
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {}}}]


def vector(name):
    return (VECTORS / name).read_bytes()


@pytest.fixture
async def gateway(tmp_path):
    async with running_gateway(tmp_path) as running:
        yield running


class Proving:
    """Clients of one gateway, and the verdicts about what they were given."""

    def __init__(self, gateway):
        self.policy = Policy(authorities=(gateway.world.authority.public,))
        self.url = f"http://127.0.0.1:{gateway.port}"
        self.verdicts = []

    def options(self):
        def keep(verdict, bundle):
            self.verdicts.append(verdict)

        return {"on_evidence": keep, "clock": lambda: float(NOW)}

    def openai(self):
        client = httpx2.Client(transport=AttestTransport(self.policy, **self.options()))
        return openai.OpenAI(
            base_url=f"{self.url}/v1", api_key="x", http_client=client, max_retries=0
        )

    def async_openai(self):
        transport = AsyncAttestTransport(self.policy, **self.options())
        client = httpx2.AsyncClient(transport=transport)
        return openai.AsyncOpenAI(
            base_url=f"{self.url}/v1", api_key="x", http_client=client, max_retries=0
        )

    def anthropic(self):
        client = httpx2.Client(transport=AttestTransport(self.policy, **self.options()))
        return anthropic.Anthropic(
            base_url=self.url, api_key="x", http_client=client, max_retries=0
        )

    def async_anthropic(self):
        transport = AsyncAttestTransport(self.policy, **self.options())
        client = httpx2.AsyncClient(transport=transport)
        return anthropic.AsyncAnthropic(
            base_url=self.url, api_key="x", http_client=client, max_retries=0
        )


@pytest.fixture
def proving(gateway):
    return Proving(gateway)


@pytest.mark.parametrize("call", CALLS)
async def test_proven(gateway, proving, call):
    gateway.engine.answer(answer_of(call))
    assert await run(proving, call) == "Hello."
    (verdict,) = proving.verdicts
    assert verdict.proven
    assert verdict.claims["res"]["outcome"] == "complete"


@pytest.mark.parametrize("call", CALLS)
async def test_text_that_imitates_an_end(gateway, proving, call):
    text = (
        'x\n\nevent: message_stop\ndata: {"type": "message_stop"}\n\ndata: [DONE]\n\n'
    )
    gateway.engine.answer(answer_of(call, text))
    assert await run(proving, call) == text


@pytest.mark.parametrize("call", CALLS)
async def test_answer_of_a_stranger_is_never_handed_on(gateway, proving, call):
    """The attester signs that something else was sent."""
    gateway.engine.answer(answer_of(call))

    async def seal(exchange):
        exchange.content_digest = "sha256:" + "0" * 64
        return await Attester.seal(gateway.attester, exchange)

    gateway.attester.seal = seal
    broken = (openai.APIConnectionError, anthropic.APIConnectionError)
    with pytest.raises((VerificationError, *broken)) as caught:
        await run(proving, call)
    found = caught.value
    while not isinstance(found, VerificationError):
        found = found.__cause__
    assert "not the attested one" in str(found)


@pytest.mark.parametrize("call", [c for c in CALLS if CALLS[c][1]])
async def test_cut_stream_is_never_taken_for_whole(gateway, proving, call):
    gateway.engine.answer(sse(*SPOKEN[CALLS[call][0]].events("Hello.")[:-2]))
    with pytest.raises(PolicyError, match="outcome truncated"):
        await run(proving, call)


# The rest of the OpenAI surface.


async def test_embeddings(gateway, proving):
    gateway.engine.answer(json_answer(vector("embeddings.response.json")))
    async with proving.async_openai() as client:
        answer = await client.embeddings.create(
            model="tiny", input=["hello", "world"], encoding_format="float"
        )
    assert len(answer.data) == 2
    assert len(answer.data[0].embedding) == 64
    assert proving.verdicts[0].proven


async def test_sync_embeddings(gateway, proving):
    gateway.engine.answer(json_answer(vector("embeddings.response.json")))

    def ask():
        with proving.openai() as client:
            return client.embeddings.create(
                model="tiny", input="hello", encoding_format="float"
            )

    assert len((await asyncio.to_thread(ask)).data) == 2
    assert proving.verdicts[0].proven


async def test_transcription(gateway, proving):
    usage = {"type": "duration", "seconds": 1}
    body = json.dumps({"text": "Hello.", "usage": usage}).encode()
    gateway.engine.answer(json_answer(body))
    async with proving.async_openai() as client:
        answer = await client.audio.transcriptions.create(
            model="tiny", file=("a.wav", b"RIFF", "audio/wav"), language="en"
        )
    assert answer.text == "Hello."
    assert proving.verdicts[0].proven


async def test_tool_call(gateway, proving):
    gateway.engine.answer(sse(vector("chat_tools_named_stream.response.sse")))
    async with proving.async_openai() as client:
        chunks = await client.chat.completions.create(
            model="tiny", messages=USER, tools=TOOLS, stream=True
        )
        calls = [
            call
            async for chunk in chunks
            for call in chunk.choices[0].delta.tool_calls or ()
        ]
    assert calls[0].function.name == "get_weather"
    assert proving.verdicts[0].disclosed["out.0"]


@pytest.mark.parametrize(
    ("recorded", "members"),
    [
        ("chat_n2", {"n": 2}),
        ("chat_logprobs", {"logprobs": True, "top_logprobs": 2}),
        (
            "chat_json_schema",
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {}},
                }
            },
        ),
    ],
)
async def test_recorded_chat(gateway, proving, recorded, members):
    gateway.engine.answer(json_answer(vector(f"{recorded}.response.json")))
    async with proving.async_openai() as client:
        answer = await client.chat.completions.create(
            model="tiny", messages=USER, **members
        )
    (verdict,) = proving.verdicts
    assert verdict.proven
    assert verdict.claims["res"]["choices"] == len(answer.choices)


async def test_pictures(gateway, proving):
    gateway.engine.answer(json_answer(vector("chat.response.json")))
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    async with proving.async_openai() as client:
        await client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": [picture]}]
        )
    assert proving.verdicts[0].disclosed["request.semantic_digest"]
    assert b"image_url" in gateway.engine.requests[0].body


async def test_usage_in_a_stream(gateway, proving):
    gateway.engine.answer(sse(vector("chat_stream_usage.response.sse")))
    async with proving.async_openai() as client:
        chunks = await client.chat.completions.create(
            model="tiny",
            messages=USER,
            stream=True,
            stream_options={"include_usage": True},
        )
        last = [chunk async for chunk in chunks][-1]
    claims = proving.verdicts[0].claims
    assert claims["gen_ai.usage.output_tokens"] == last.usage.completion_tokens


async def test_tool_use_in_messages(gateway, proving):
    block = {"type": "tool_use", "id": "t", "name": "f", "input": {"city": "Paris"}}
    body = {**SPOKEN["messages"].whole(""), "content": [block]}
    body["stop_reason"] = "tool_use"
    gateway.engine.answer(json_answer(json.dumps(body).encode()))
    async with proving.async_anthropic() as client:
        answer = await client.messages.create(
            model="tiny",
            max_tokens=8,
            system="Be terse.",
            messages=USER,
            tools=[{"name": "f", "input_schema": {"type": "object"}}],
        )
    assert answer.content[0].input == {"city": "Paris"}
    assert proving.verdicts[0].disclosed["out.0"]


async def test_count_tokens_is_passed(gateway, proving):
    gateway.engine.answer(json_answer(vector("messages_count_tokens.response.json")))
    async with proving.async_anthropic() as client:
        answer = await client.messages.count_tokens(model="tiny", messages=USER)
    assert answer.input_tokens == 18
    assert proving.verdicts == []


# The helper for Anthropic's SDK.


@pytest.fixture
async def today(tmp_path):
    """A gateway of now: the helper's clock is the machine's."""
    world = make_world(now=int(time.time()))
    async with running_gateway(tmp_path, world=world) as running:
        running.attester._clock = time.time
        yield running


def anthropic_of(gateway, make):
    policy = Policy(authorities=(gateway.world.authority.public,))
    return make(f"http://127.0.0.1:{gateway.port}", policy)


async def test_helper(today):
    today.engine.answer(answer_of(message), answer_of(message_stream))

    def ask():
        with anthropic_of(today, anthropic_client) as client:
            assert isinstance(client, anthropic.Anthropic)
            return message(client), message_stream(client)

    assert await asyncio.to_thread(ask) == ("Hello.", "Hello.")
    async with anthropic_of(today, async_anthropic_client) as client:
        assert await async_message_stream(client) == "Hello."


async def test_helper_raises_our_error_at_once(today):
    today.engine.answer(json_answer(b"{}"))

    def ask():
        with anthropic_of(today, anthropic_client) as client:
            message(client)

    with pytest.raises(PolicyError, match="upstream_malformed") as caught:
        await asyncio.to_thread(ask)
    assert isinstance(caught.value, anthropic.AnthropicError)
    async with anthropic_of(today, async_anthropic_client) as client:
        with pytest.raises(PolicyError, match="upstream_malformed"):
            await async_message(client)
    assert len(today.engine.requests) == 2


def test_helper_without_its_sdk(monkeypatch, world):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "anthropic", None)
        with pytest.raises(ConfigurationError, match="not installed"):
            anthropic_client("http://x", world.policy)
    monkeypatch.setattr(anthropic, "__version__", "1.9.0")
    with pytest.raises(ConfigurationError, match="too old"):
        anthropic_client("http://x", world.policy)


# Errors, as each SDK raises them.


async def test_errors(gateway, proving):
    async with proving.async_openai() as client:
        with pytest.raises(openai.NotFoundError) as caught:
            await client.responses.create(model="nope", input="hello")
        assert caught.value.param == "model"
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(
                model="tiny", input="hello", previous_response_id="resp_1"
            )
        assert caught.value.param == "previous_response_id"
    async with proving.async_anthropic() as client:
        with pytest.raises(anthropic.NotFoundError, match="not served here"):
            await client.messages.create(model="nope", max_tokens=8, messages=USER)


async def test_error_event(gateway, proving):
    error = {"type": "error", "error": {"type": "api_error", "message": "boom"}}
    spoken = SPOKEN["messages"]
    gateway.engine.answer(sse(spoken.events("a")[0], spoken.event(error)))
    async with proving.async_anthropic() as client:
        events = await client.messages.create(
            model="tiny", max_tokens=8, messages=USER, stream=True
        )
        with pytest.raises(PolicyError, match="outcome upstream_error"):
            [event async for event in events]
