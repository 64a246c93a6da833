"""The OpenAI SDK itself, over a loopback port."""

import asyncio
import json
import sys
import time

import httpx
import httpx2
import openai
import pytest
from fakes.attested_gateway import CHAT, COMPLETIONS, AttestedGateway, Reply, serve
from fakes.world import ANSWER, TEXT, make_world

from attest.client import async_openai_client, openai_client
from attest.errors import (
    AttestError,
    ConfigurationError,
    EvidenceUnavailableError,
    VerificationError,
)

QUESTION = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
PROMPT = {"model": "tiny", "prompt": "2+2="}


@pytest.fixture(params=[httpx2, httpx], autouse=True, ids=lambda http: http.__name__)
def http(request, monkeypatch):
    """As openai 3, and as openai 1 and 2 are: 3 takes clients of httpx, too."""
    if request.param is httpx:
        monkeypatch.setattr(openai, "__version__", "2.54.0")
        monkeypatch.setattr(openai, "DEFAULT_TIMEOUT", httpx.Timeout(600))
        monkeypatch.setattr(openai, "DEFAULT_CONNECTION_LIMITS", httpx.Limits())


@pytest.fixture(scope="module")
def today():
    return make_world(now=int(time.time()))


@pytest.fixture(scope="module")
def served(today):
    gateway = AttestedGateway(today)
    with serve(gateway) as url:
        yield gateway, f"{url}/v1"


@pytest.fixture
def gateway(served, today):
    gateway, _ = served
    vars(gateway).update(vars(AttestedGateway(today)))
    return gateway


@pytest.fixture
def url(served):
    return served[1]


@pytest.fixture
def client(gateway, url):
    with openai_client(url, gateway.world.policy) as client:
        yield client


@pytest.fixture
def run(gateway, url):
    """Runs an async function with an async client."""

    async def main(function):
        async with async_openai_client(url, gateway.world.policy) as client:
            return await function(client)

    return lambda function: asyncio.run(main(function))


def chat(client):
    return client.chat.completions.create(**QUESTION).choices[0].message.content


def chat_stream(client):
    chunks = client.chat.completions.create(**QUESTION, stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def chat_helper(client):
    with client.chat.completions.stream(**QUESTION) as stream:
        stream.until_done()
        return stream.get_final_completion().choices[0].message.content


def completion(client):
    return client.completions.create(**PROMPT).choices[0].text


def completion_stream(client):
    chunks = client.completions.create(**PROMPT, stream=True)
    return "".join(chunk.choices[0].text for chunk in chunks)


async def async_chat(client):
    answer = await client.chat.completions.create(**QUESTION)
    return answer.choices[0].message.content


async def async_chat_stream(client):
    chunks = await client.chat.completions.create(**QUESTION, stream=True)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])


async def async_chat_helper(client):
    async with client.chat.completions.stream(**QUESTION) as stream:
        await stream.until_done()
        return (await stream.get_final_completion()).choices[0].message.content


async def async_completion_stream(client):
    chunks = await client.completions.create(**PROMPT, stream=True)
    return "".join([chunk.choices[0].text async for chunk in chunks])


SYNC = {
    chat: TEXT,
    chat_stream: TEXT,
    chat_helper: TEXT,
    completion: "4",
    completion_stream: "4",
}
ASYNC = {
    async_chat: TEXT,
    async_chat_stream: TEXT,
    async_chat_helper: TEXT,
    async_completion_stream: "4",
}


@pytest.mark.parametrize("way", SYNC)
def test_proven(client, way):
    assert isinstance(client, openai.OpenAI)
    assert way(client) == SYNC[way]


@pytest.mark.parametrize("way", ASYNC)
def test_proven_async(run, way):
    assert run(way) == ASYNC[way]


def changed(reply):
    for old, new in ((b"Paris", b"Milan"), (b'"4"', b'"5"')):
        if old in reply.body:
            return reply.swapped(old, new)
    raise AssertionError


def asked(gateway):
    paths = gateway.paths()
    return paths.count(CHAT) + paths.count(COMPLETIONS)


@pytest.mark.parametrize("way", SYNC)
def test_an_error_of_ours_comes_as_it_is_and_at_once(client, gateway, way):
    """Not as APIConnectionError, and without asking again."""
    gateway.mangle = changed
    with pytest.raises(VerificationError, match="step 6 content"):
        way(client)
    assert asked(gateway) == 1


@pytest.mark.parametrize("way", ASYNC)
def test_also_from_async_clients(run, gateway, way):
    gateway.mangle = changed
    with pytest.raises(VerificationError, match="step 6 content"):
        run(way)
    assert asked(gateway) == 1


def test_no_attestation(client, gateway):
    gateway.mangle = lambda reply: reply.without("attestation", "attestation-id")
    with pytest.raises(EvidenceUnavailableError, match="no attestation"):
        chat(client)


def test_raw_responses_are_proven_too(client, gateway):
    assert (
        client.chat.completions.with_raw_response.create(**QUESTION).content == ANSWER
    )
    gateway.mangle = changed
    with pytest.raises(VerificationError):
        client.chat.completions.with_raw_response.create(**QUESTION)
    with (
        pytest.raises(VerificationError),
        client.chat.completions.with_streaming_response.create(**QUESTION),
    ):
        pytest.fail("the head of an unproven answer was handed on")


def test_errors_of_the_gateway_are_the_sdk_s(client, gateway):
    gateway.status = 400
    with pytest.raises(openai.BadRequestError):
        chat(client)
    with pytest.raises(openai.BadRequestError):
        chat_stream(client)


def test_busy_gateways_are_asked_again(client, gateway):
    """The SDK's own retries work on, for what is worth a retry."""

    def recover(reply):
        gateway.status = 200
        return reply

    gateway.status = 503
    gateway.mangle = recover
    assert chat(client.with_options(max_retries=1)) == TEXT
    assert asked(gateway) == 2


def test_other_routes_pass(client, gateway):
    models = {"object": "list", "data": [{"id": "tiny", "object": "model"}]}
    gateway.evidence["/v1/models"] = Reply(
        200, {"content-type": "application/json"}, json.dumps(models).encode()
    )
    assert [model.id for model in client.models.list()] == ["tiny"]


def test_evidence_is_handed_over(gateway, url):
    found = []
    with openai_client(
        url,
        gateway.world.policy,
        api_key="k",
        on_evidence=lambda *evidence: found.append(evidence),
        max_retries=0,
    ) as client:
        chat(client)
        chat_stream(client)
    assert [verdict.proven for verdict, _ in found] == [True, True]
    assert [bundle.response is None for _, bundle in found] == [False, False]
    assert gateway.received[0].headers["authorization"] == "Bearer k"


def test_a_buffered_client_hands_on_nothing_unproven(gateway, url):
    seen = []
    gateway.mangle = changed
    with openai_client(url, gateway.world.policy, buffered=True) as client:
        chunks = client.chat.completions.create(**QUESTION, stream=True)
        with pytest.raises(VerificationError):
            seen.extend(chunks)
    assert seen == []
    gateway.mangle = AttestedGateway(gateway.world).mangle
    with openai_client(url, gateway.world.policy, buffered=True) as client:
        assert chat_stream(client) == TEXT


def test_a_client_that_asks_for_no_status(client, gateway):
    """It is left with a failure that holds nothing of the answer."""
    gateway.mangle = changed
    response = client._client.post(f"{client.base_url}chat/completions", json=QUESTION)
    assert (response.status_code, response.content) == (502, b"")
    with pytest.raises(AttestError):
        response.raise_for_status()


def test_without_the_sdk(monkeypatch, today):
    monkeypatch.setitem(sys.modules, "openai", None)
    for make in (openai_client, async_openai_client):
        with pytest.raises(ConfigurationError) as caught:
            make("http://127.0.0.1/v1", today.policy)
        assert "pip install openai" in caught.value.hint
