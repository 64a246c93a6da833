"""Endpoints that answer with numbers, and those that are passed on unsigned."""

import json
from pathlib import Path

import pytest
from fakes.gateway import running_gateway
from fakes.upstream import CLOSE, Answer, chunk, head, json_answer, sse

from attest.digests import digest
from attest.request import semantic_digest
from gateway.settings import LimitSettings

VECTORS = Path(__file__).parents[2] / "vectors" / "vllm-0.32"
EMBEDDINGS = (VECTORS / "embeddings.response.json").read_bytes()
USAGE = {"prompt_tokens": 4, "total_tokens": 4}
SCORE = {"index": 0, "object": "score", "score": 0.25}
CLASS = {"index": 0, "label": "a", "probs": [0.5, 0.5], "num_classes": 2}
RANK = {"index": 0, "document": {"text": "b"}, "relevance_score": 0.25}


def listed(*data, member="data"):
    value = {"id": "x-1", "model": "tiny", member: list(data), "usage": USAGE}
    return json.dumps(value).encode()


ENDPOINTS = {
    "/v1/embeddings": ({"input": ["hello", "world"]}, EMBEDDINGS),
    "/v1/score": ({"text_1": "a", "text_2": ["b"]}, listed(SCORE)),
    "/classify": ({"input": "a"}, listed(CLASS)),
    "/pooling": ({"input": "a"}, listed({"index": 0, "data": [[0.5]]})),
    "/v1/rerank": (
        {"query": "a", "documents": ["b"]},
        listed(RANK, member="results"),
    ),
    "/rerank": ({"query": "a", "documents": ["b"]}, listed(RANK, member="results")),
}


@pytest.fixture(params=ENDPOINTS)
def path(request):
    return request.param


async def ask(gateway, path, **members):
    asked, _ = ENDPOINTS[path]
    return await gateway.chat({"model": "tiny", **asked, **members}, path=path)


async def test_numbers(gateway, path):
    body = ENDPOINTS[path][1]
    gateway.engine.answer(json_answer(body))
    response = await ask(gateway, path)
    assert response.content == body
    claims = await gateway.verify(response)
    assert claims["res"]["choices"] == 0
    assert claims["res"]["content_digest"] == digest(body)
    assert claims["gen_ai.response.model"] == "tiny"
    assert claims["gen_ai.usage.input_tokens"] == gateway.exchange.transcript.usage[0]
    assert gateway.engine.requests[0].path == path
    assert gateway.engine.requests[0].body == response.request.content


async def test_what_was_read_is_committed(gateway, path):
    gateway.engine.answer(json_answer(ENDPOINTS[path][1]))
    verdict = await gateway.verdict(await ask(gateway, path))
    facts = gateway.exchange.facts
    assert facts.semantic == ENDPOINTS[path][0]
    assert verdict.disclosed["request.semantic_digest"] == semantic_digest(facts)
    assert not [name for name in verdict.disclosed if name.startswith("out.")]


@pytest.mark.parametrize("body", [b"<html>", b"", b"{}", b"[]", b'{"data": {}}'])
async def test_body_of_another_kind_is_malformed(gateway, path, body):
    gateway.engine.answer(json_answer(body))
    await gateway.verify(await ask(gateway, path), outcomes=["upstream_malformed"])


async def test_stream_is_malformed(gateway):
    gateway.engine.answer(sse(b'data: {"data": []}\n\n'))
    response = await ask(gateway, "/v1/embeddings")
    await gateway.verify(response, outcomes=["upstream_malformed"])


async def test_error_of_an_engine_that_does_not_embed(gateway, path):
    gateway.engine.answer(json_answer(b'{"detail":"Not Found"}', 404))
    response = await ask(gateway, path)
    assert response.status_code == 404
    await gateway.verify(response, outcomes=["refused"])


async def test_body_that_breaks_off(gateway, path):
    cut = [head(kind="application/json"), chunk(b'{"data"'), CLOSE]
    gateway.engine.answer(Answer(cut))
    response = await ask(gateway, path)
    assert response.status_code == 502
    await gateway.verify(response, outcomes=["upstream_error"])


@pytest.mark.parametrize("value", ["bytes", "bytes_only"])
async def test_answer_in_bytes_is_not_served(gateway, value):
    response = await ask(gateway, "/v1/embeddings", encoding_format=value)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "encoding_format"
    assert gateway.engine.requests == []


@pytest.mark.parametrize(
    "members",
    [
        {"encoding_format": "base64", "dimensions": 8},
        {"truncate_prompt_tokens": 9, "add_special_tokens": True, "stream": False},
    ],
)
async def test_harmless_members(gateway, members):
    gateway.engine.answer(json_answer(EMBEDDINGS))
    claims = await gateway.verify(await ask(gateway, "/v1/embeddings", **members))
    assert "overrides" not in claims


@pytest.mark.parametrize(
    ("member", "value"),
    [("chat_template", "x"), ("add_special_tokens", False), ("something_new", 1)],
)
async def test_override_is_refused(gateway, path, member, value):
    response = await ask(gateway, path, **{member: value})
    assert response.status_code == 400
    assert gateway.engine.requests == []


async def test_messages_to_embed(gateway):
    gateway.engine.answer(json_answer(EMBEDDINGS))
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    response = await gateway.chat({"messages": messages}, path="/v1/embeddings")
    claims = await gateway.verify(response)
    assert claims["system_prompt"] == "unlisted"
    response = await gateway.chat({"messages": "u"}, path="/v1/embeddings")
    assert response.json()["error"]["param"] == "messages"


# Passed on.

PASSED = {
    "/tokenize": ({"prompt": "a"}, "tokenize"),
    "/detokenize": ({"tokens": [1]}, "detokenize"),
    "/v1/messages/count_tokens": ({"messages": []}, "messages_count_tokens"),
}


@pytest.mark.parametrize("path", PASSED)
async def test_passed(gateway, path):
    asked, name = PASSED[path]
    body = (VECTORS / f"{name}.response.json").read_bytes()
    gateway.engine.answer(json_answer(body))
    response = await gateway.chat(
        {"model": "tiny", **asked}, path=path, headers={"authorization": "Bearer x"}
    )
    assert response.content == body
    assert response.headers["attestation-manifest"] == gateway.world.manifest.digest
    assert "attestation-id" not in response.headers
    (request,) = gateway.engine.requests
    assert (request.path, request.body) == (path, response.request.content)
    assert "authorization" not in request.headers
    assert gateway.attester.exchanges == []


@pytest.mark.parametrize("path", PASSED)
async def test_passed_bodies_are_json_and_bounded(tmp_path, path):
    limits = LimitSettings(max_body_bytes=10, max_concurrency=2)
    async with running_gateway(tmp_path, limits=limits) as gateway:
        gateway.engine.answer(json_answer(b"{}"))
        kind = {"content-type": "text/plain"}
        assert (await gateway.chat(b"{}", path=path, headers=kind)).status_code == 415
        response = await gateway.chat(b"x" * 11, path=path)
        assert response.status_code == 413
        kinds = {"/v1/messages/count_tokens": "request_too_large"}
        expected = kinds.get(path, "invalid_request_error")
        assert response.json()["error"]["type"] == expected
        assert gateway.engine.requests == []
