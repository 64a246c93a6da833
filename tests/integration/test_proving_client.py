"""The verifying client against the real gateway: both ends agree byte for byte."""

import ssl
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import httpx2
import openai
import pytest
from fakes.gateway import CHAT, COMPLETIONS, chat_body, running_gateway
from fakes.upstream import RESET, Answer, chunk, head, json_answer, sse
from fakes.world import NOW

from attest.client.httpx2 import AsyncAttestTransport
from attest.delivery import split_stream
from attest.errors import PolicyError, TranscriptMismatchError, VerificationError

VECTORS = Path(__file__).parents[1] / "vectors" / "vllm-0.32"
MESSAGES = [{"role": "user", "content": "hello"}]


def vector(name):
    return (VECTORS / name).read_bytes()


BODY = vector("chat.response.json")
STREAM = vector("chat_stream.response.sse")
FIRST = STREAM[: STREAM.index(b"\n\n") + 2]
ERROR = b'data: {"error": {"message": "boom", "type": "E", "code": 500}}\n\n'
STREAMED = chat_body(stream=True)


@asynccontextmanager
async def proving(folder, **options):
    """A gateway, a client that proves its answers, and the verdicts."""
    verdicts = []
    async with running_gateway(folder, **options) as gateway:
        # Reading the list of authorities would take most of a test's time.
        inner = httpx2.AsyncHTTPTransport(
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        )
        transport = AsyncAttestTransport(
            gateway.world.policy,
            inner=inner,
            on_evidence=lambda verdict, _: verdicts.append(verdict),
            clock=lambda: NOW,
        )
        async with httpx2.AsyncClient(
            transport=transport, base_url=f"http://127.0.0.1:{gateway.port}"
        ) as client:
            yield gateway, client, verdicts


@pytest.fixture
async def gateway(tmp_path):
    async with proving(tmp_path) as parts:
        yield parts


async def test_body(gateway):
    running, client, verdicts = gateway
    running.engine.answer(json_answer(BODY))
    assert (await client.post(CHAT, json=chat_body())).content == BODY
    assert [verdict.proven for verdict in verdicts] == [True]
    assert "request and response" in verdicts[0].step(6).detail
    assert "nonce matches" in verdicts[0].step(7).detail


@pytest.mark.parametrize(
    "name",
    [
        "chat_stream",
        "chat_stream_usage",
        "chat_n2_stream",
        "chat_logprobs_stream",
        "chat_tools_named_stream",
    ],
)
async def test_stream(gateway, name):
    running, client, verdicts = gateway
    recorded = vector(f"{name}.response.sse")
    running.engine.answer(sse(recorded))
    body = chat_body(stream=True, n=2) if "n2" in name else STREAMED
    assert (await client.post(CHAT, json=body)).content == recorded
    assert [verdict.proven for verdict in verdicts] == [True]


async def test_completions(gateway):
    running, client, verdicts = gateway
    recorded = vector("completion_stream.response.sse")
    running.engine.answer(sse(recorded))
    body = {"model": "tiny", "prompt": "a", "stream": True}
    assert (await client.post(COMPLETIONS, json=body)).content == recorded
    assert verdicts[0].proven


@pytest.mark.parametrize(
    ("path", "name", "body"),
    [
        ("/v1/responses", "responses", {"input": "a"}),
        ("/v1/messages", "messages", {"max_tokens": 9, "messages": MESSAGES}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_other_dialects(gateway, path, name, body, stream):
    running, client, verdicts = gateway
    kind = "_stream.response.sse" if stream else ".response.json"
    recorded = vector(name + kind)
    running.engine.answer(sse(recorded) if stream else json_answer(recorded))
    request = {"model": "tiny", "stream": stream, **body}
    answer = await client.post(path, json=request)
    assert answer.content == recorded
    assert verdicts[0].proven


async def test_without_comments(tmp_path):
    """The gateway was told to keep its streams bare; the id leads to the token."""
    async with proving(tmp_path, comments=False) as (running, client, verdicts):
        running.engine.answer(sse(STREAM))
        assert (await client.post(CHAT, json=STREAMED)).content == STREAM
        assert verdicts[0].proven


async def test_where_this_request_asks_for_no_comment(gateway):
    running, client, verdicts = gateway
    running.engine.answer(sse(STREAM))
    headers = {"attestation-delivery": "none"}
    answer = await client.post(CHAT, json=STREAMED, headers=headers)
    assert answer.content == STREAM
    assert verdicts[0].proven


async def test_error_within_a_stream(gateway):
    """Attested, and no answer: the policy takes complete ones alone."""
    running, client, verdicts = gateway
    running.engine.answer(sse(FIRST, ERROR, b"data: [DONE]\n\n"))
    with pytest.raises(PolicyError, match="upstream_error"):
        await client.post(CHAT, json=STREAMED)
    assert verdicts[0].claims["res"]["outcome"] == "upstream_error"


async def test_stream_that_ends_too_early(gateway):
    running, client, _ = gateway
    running.engine.answer(sse(STREAM.removesuffix(b"data: [DONE]\n\n")[:600]))
    with pytest.raises(VerificationError, match="outcome"):
        await client.post(CHAT, json=STREAMED)


async def test_stream_that_breaks(gateway):
    running, client, _ = gateway
    running.engine.answer(Answer([head(), chunk(STREAM[:600]), RESET]))
    with pytest.raises((VerificationError, httpx2.RemoteProtocolError)):
        await client.post(CHAT, json=STREAMED)


async def test_refusals_are_attested_and_passed_on(gateway):
    _, client, verdicts = gateway
    answer = await client.post(CHAT, json=chat_body(n=0))
    assert answer.status_code == 400
    assert verdicts[0].claims["res"]["outcome"] == "refused"
    assert verdicts[0].problem.name == "policy"


async def test_with_api_keys(tmp_path):
    keys = [sha256(b"key").digest()]
    async with proving(tmp_path, api_keys=keys, comments=False) as parts:
        running, client, verdicts = parts
        running.engine.answer(sse(STREAM))
        answer = await client.post(
            CHAT, json=STREAMED, headers={"authorization": "Bearer key"}
        )
        assert answer.content == STREAM
        assert verdicts[0].proven
        assert (await client.post(CHAT, json=STREAMED)).status_code == 401


async def test_through_the_sdk(gateway):
    running, client, verdicts = gateway
    whole = STREAM.replace(b'"finish_reason":"length"', b'"finish_reason":"stop"')
    async with openai.AsyncOpenAI(
        base_url=f"{client.base_url}/v1", api_key="x", http_client=client
    ) as sdk:
        running.engine.answer(sse(whole))
        async with sdk.chat.completions.stream(
            model="tiny", messages=MESSAGES
        ) as stream:
            await stream.get_final_completion()
        assert verdicts[0].proven


async def test_a_change_between_them_is_found(gateway):
    """What the gateway sent is what is proven, not what the client got."""
    running, client, _ = gateway
    honest = client._transport._inner.handle_async_request

    async def lying(request):
        answer = await honest(request)
        if request.method == "POST":
            body = b"".join([part async for part in answer.stream])
            covered, _ = split_stream(body)
            assert covered == STREAM
            lie = body.replace(b"data: ", b"data:  ", 1)
            answer.stream = httpx2.ByteStream(lie)
        return answer

    client._transport._inner.handle_async_request = lying
    running.engine.answer(sse(STREAM))
    with pytest.raises(TranscriptMismatchError):
        await client.post(CHAT, json=STREAMED)


async def test_long_answers(gateway):
    """Over a megabyte, in many events; memory and time stay in bounds."""
    running, client, verdicts = gateway
    event = STREAM[: STREAM.index(b"\n\n") + 2]
    start, end = STREAM.split(event, 1)
    long = start + event * 4000 + end
    running.engine.answer(sse(long))
    assert (await client.post(CHAT, json=STREAMED)).content == long
    assert verdicts[0].proven
