"""An engine that gives up still says [DONE]; that is no whole answer."""

import json
from pathlib import Path

import pytest
from fakes.gateway import chat_body
from fakes.upstream import json_answer, sse

from attest.errors import VerificationError

VECTORS = Path(__file__).parents[1] / "vectors" / "vllm-0.32"
STREAM = (VECTORS / "chat_stream.response.sse").read_bytes()
TWO = (VECTORS / "chat_n2_stream.response.sse").read_bytes()
BODY = (VECTORS / "chat.response.json").read_bytes()
REASON = b'"finish_reason":"length"'


async def outcome_of(gateway, stream, *, n=1):
    gateway.engine.answer(sse(stream))
    response = await gateway.chat(chat_body(stream=True, n=n))
    with pytest.raises(VerificationError, match="incomplete"):
        await gateway.verify(response)
    return (await gateway.claims(response.headers["attestation-id"]))["res"]["outcome"]


@pytest.mark.parametrize("reason", [b'"abort"', b'"error"', b"null", b'"new_reason"'])
async def test_done_after(gateway, reason):
    stream = STREAM.replace(REASON, b'"finish_reason":' + reason)
    assert stream != STREAM
    assert await outcome_of(gateway, stream) == "incomplete"


async def test_one_of_two_choices_aborted(gateway):
    stream = TWO.replace(REASON, b'"finish_reason":"abort"', 1)
    assert await outcome_of(gateway, stream, n=2) == "incomplete"


async def test_one_of_two_choices_never_came(gateway):
    assert await outcome_of(gateway, STREAM, n=2) == "incomplete"


async def test_body_of_an_aborted_answer(gateway):
    body = BODY.replace(REASON, b'"finish_reason":"abort"')
    gateway.engine.answer(json_answer(body))
    response = await gateway.chat()
    assert json.loads(response.content)["choices"][0]["finish_reason"] == "abort"
    claims = await gateway.verify(response, outcomes=["incomplete"])
    assert claims["gen_ai.response.finish_reasons"] == ["abort"]
