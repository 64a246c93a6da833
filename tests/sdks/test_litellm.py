"""LiteLLM takes the OpenAI client itself."""

import asyncio

import litellm
import pytest
from fakes.world import TEXT

from attest.client import async_openai_client, openai_client

# It raises errors of its own, and ours is the cause of the cause.
HI = [{"role": "user", "content": "hi"}]


def arguments(**more):
    return {"model": "openai/tiny", "messages": HI, "num_retries": 0, **more}


def complete(make):
    answer = litellm.completion(**arguments(**make(openai_client)))
    return answer.choices[0].message.content


def stream(make):
    chunks = litellm.completion(**arguments(**make(openai_client)), stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def acomplete(make):
    answer = asyncio.run(litellm.acompletion(**arguments(**make(async_openai_client))))
    return answer.choices[0].message.content


def astream(make):
    async def text():
        chunks = await litellm.acompletion(
            **arguments(**make(async_openai_client)), stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

    return asyncio.run(text())


WAYS = pytest.mark.parametrize("way", [complete, stream, acomplete, astream])


@pytest.fixture
def proving(url, policy):
    """For each call: a client of ours, sync or async."""

    def proving(**options):
        return lambda make: {"client": make(url, policy, max_retries=0, **options)}

    return proving


def causes(error):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@WAYS
def test_the_default_delivery_breaks_nothing(gateway, url, way):
    assert way(lambda _: {"api_base": url, "api_key": "k"}) == TEXT


@WAYS
def test_the_default_delivery_of_the_real_gateway(real_gateway, way):
    real_gateway.check(
        way, lambda url: way(lambda _: {"api_base": url, "api_key": "k"})
    )


@WAYS
def test_proven(gateway, proving, way):
    found = []
    keep = proving(on_evidence=lambda *evidence: found.append(evidence))
    assert way(keep) == TEXT
    ((verdict, bundle),) = found
    assert verdict.proven
    assert bundle.request == gateway.received[0].body


@WAYS
def test_a_lie_raises(lying, proving, way):
    with pytest.raises(Exception, match="step 6 content"):
        way(proving())


@WAYS
def test_without_an_attestation_there_is_no_answer(gateway, proving, way):
    gateway.header = gateway.comment = False
    gateway.mangle = lambda reply: reply.without("attestation-id")
    with pytest.raises(Exception, match="no attestation"):
        way(proving())


@pytest.mark.parametrize("way", [stream, astream])
def test_a_buffered_stream_is_proven(gateway, proving, way):
    assert way(proving(buffered=True)) == TEXT
