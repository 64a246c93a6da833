"""The stock SDKs in front of a gateway as it is set up by default: it breaks none.

They know nothing of attestations. Each way to ask finishes as without the gateway, and
the attestation of what it was given can be had.
"""

import anthropic
import openai
import pytest
from fakes.gateway import running_gateway
from fakes.sdk_calls import CALLS, answer_of, run

from attest.delivery import ATTESTATION_HEADER

# What the parsers of these SDKs could stumble over.
TEXTS = ["Hello.", "", 'a\u2028b\n\ndata: [DONE]\n\n: attestation x\n\nevent: y "é"']


class Stock:
    """Clients of one gateway, as their makers deliver them."""

    def __init__(self, gateway):
        self._url = f"http://127.0.0.1:{gateway.port}"

    def openai(self):
        return openai.OpenAI(base_url=f"{self._url}/v1", api_key="x", max_retries=0)

    def async_openai(self):
        return openai.AsyncOpenAI(
            base_url=f"{self._url}/v1", api_key="x", max_retries=0
        )

    def anthropic(self):
        return anthropic.Anthropic(base_url=self._url, api_key="x", max_retries=0)

    def async_anthropic(self):
        return anthropic.AsyncAnthropic(base_url=self._url, api_key="x", max_retries=0)


@pytest.fixture
async def gateway(tmp_path):
    async with running_gateway(tmp_path) as running:
        yield running


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("call", CALLS)
async def test_the_default_delivery_breaks_nothing(gateway, call, text):
    gateway.engine.answer(answer_of(call, text))
    assert await run(Stock(gateway), call) == text
    await gateway.wait_sealed()
    kept = await gateway.client.get(f"/v1/attestations/{gateway.exchange.id}")
    assert kept.status_code == 200
    claims = await gateway.claims(gateway.exchange.id)
    assert claims["res"]["outcome"] == "complete"
    assert claims["res"]["stream"] is CALLS[call][1]


async def test_the_comment_was_there(gateway):
    """Else the rows above would show nothing."""
    (call,) = [call for call in CALLS if call.__name__ == "chat_stream"]
    gateway.engine.answer(answer_of(call))
    body = {"model": "tiny", "messages": [], "stream": True}
    streamed = await gateway.chat(body)
    assert b"\n: attestation " in streamed.content
    assert ATTESTATION_HEADER not in streamed.headers
