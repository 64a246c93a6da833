"""LlamaIndex makes its own OpenAI clients, and takes the HTTP clients under them."""

import asyncio

import pytest
from fakes.world import TEXT
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

from attest.client import async_openai_http_client, openai_http_client
from attest.errors import EvidenceUnavailableError, VerificationError

HI = [ChatMessage(role="user", content="hi")]


def plain(url, **options):
    return OpenAILike(
        model="tiny", api_base=url, api_key="k", is_chat_model=True, **options
    )


def proving(url, policy, **options):
    return plain(
        url,
        http_client=openai_http_client(policy, **options),
        async_http_client=async_openai_http_client(policy, **options),
    )


def chat(llm):
    return llm.chat(HI).message.content


def stream(llm):
    return "".join(part.delta or "" for part in llm.stream_chat(HI))


def achat(llm):
    return asyncio.run(llm.achat(HI)).message.content


def astream(llm):
    async def text():
        return "".join([part.delta or "" async for part in await llm.astream_chat(HI)])

    return asyncio.run(text())


WAYS = pytest.mark.parametrize("way", [chat, stream, achat, astream])


@WAYS
def test_the_default_delivery_breaks_nothing(gateway, url, way):
    assert way(plain(url)) == TEXT


@WAYS
def test_the_default_delivery_of_the_real_gateway(real_gateway, way):
    real_gateway.check(way, lambda url: way(plain(url)))


@WAYS
def test_proven(gateway, url, policy, way):
    found = []
    llm = proving(url, policy, on_evidence=lambda *evidence: found.append(evidence))
    assert way(llm) == TEXT
    ((verdict, bundle),) = found
    assert verdict.proven
    assert bundle.request == gateway.received[0].body


@WAYS
def test_a_lie_raises_at_once(lying, url, policy, way):
    with pytest.raises(VerificationError, match="step 6 content"):
        way(proving(url, policy))
    assert lying.paths().count("/v1/chat/completions") == 1


@WAYS
def test_without_an_attestation_there_is_no_answer(gateway, url, policy, way):
    gateway.header = gateway.comment = False
    gateway.mangle = lambda reply: reply.without("attestation-id")
    with pytest.raises(EvidenceUnavailableError):
        way(proving(url, policy))


def test_of_a_buffered_stream_nothing_unproven_is_seen(lying, url, policy):
    seen = []
    with pytest.raises(VerificationError):
        seen.extend(proving(url, policy, buffered=True).stream_chat(HI))
    assert seen == []


@pytest.mark.parametrize("way", [stream, astream])
def test_a_buffered_stream_is_proven(gateway, url, policy, way):
    assert way(proving(url, policy, buffered=True)) == TEXT
