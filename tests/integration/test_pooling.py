"""Numbers instead of text on real parts: gateway, vLLM, a proving client."""

import time
from dataclasses import replace

import pytest
from fakes.site import Site
from fakes.tiny_bert import make_tiny_embedder, make_tiny_ranker

from attest import tokens
from attest.bundle import Bundle
from attest.client.httpx2 import AttestTransport
from attest.verify import verify
from gateway.http import httpx

pytestmark = pytest.mark.engine

PAIR = {"query": "a question", "documents": ["an answer", "another"]}
TEXTS = ["hello", "world"]
EMBEDDER = {
    "/v1/embeddings": ({"input": TEXTS}, "data"),
    "/pooling": ({"input": TEXTS}, "data"),
}
RANKER = {
    "/v1/score": ({"text_1": "a question", "text_2": ["an answer", "b"]}, "data"),
    "/v1/rerank": (PAIR, "results"),
    "/rerank": (PAIR, "results"),
    "/classify": ({"input": TEXTS}, "data"),
}
MODELS = {
    "embedder": (make_tiny_embedder, EMBEDDER),
    "ranker": (make_tiny_ranker, RANKER),
}


@pytest.fixture(scope="module", params=MODELS)
def asked(request, tmp_path_factory):
    """A site, and what its model can be asked."""
    make, questions = MODELS[request.param]
    site = Site(tmp_path_factory.mktemp("site"), make)
    site.start()
    yield site, questions
    site.close()


@pytest.fixture
def client(asked):
    site, _ = asked

    def keep(*found):
        site.evidence.append(found)

    transport = AttestTransport(site.policy, on_evidence=keep)
    with httpx.Client(base_url=site.url, transport=transport, timeout=60) as client:
        yield client


def test_each_path_is_proven(asked, client):
    site, questions = asked
    for path, (question, member) in questions.items():
        answer = client.post(path, json={"model": "tiny", **question})
        assert answer.status_code == 200, path
        assert len(answer.json()[member]) == 2, path
        verdict, bundle = site.evidence[-1]
        assert verdict.claims["weights"]["measured"] == "engine"
        assert verdict.claims["res"]["outcome"] == "complete"
        at = int(time.time())
        other = answer.content.replace(b"0.", b"1.", 1)
        assert other != answer.content
        changed = verify(replace(bundle, response=other), site.policy, at=at)
        assert changed.problem.name == "content"


def test_one_question_has_one_answer(asked, client):
    site, questions = asked
    path, (question, member) = next(iter(questions.items()))
    answers = [
        client.post(path, json={"model": "tiny", **question}).json()[member]
        for _ in range(2)
    ]
    assert answers[0] == answers[1]
    first, second = (verdict for verdict, _ in site.evidence[-2:])
    semantic = "request.semantic_digest"
    assert first.disclosed[semantic] == second.disclosed[semantic]


def test_what_such_an_engine_does_not_serve_is_an_attested_error(asked):
    site, _ = asked
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
    answer = httpx.post(f"{site.url}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 404
    kept = httpx.get(f"{site.url}/v1/attestations/{answer.headers['attestation-id']}")
    bundle = Bundle.loads(kept.content)
    assert verify(bundle, site.policy, at=int(time.time())).step(4).status == "ok"
    record = tokens.parse(bundle.boot_record, typ="eat+jwt").claims
    assert "canary" not in record


def test_tokenize_is_passed(asked, client):
    answer = client.post("/tokenize", json={"model": "tiny", "prompt": "hello"})
    assert answer.json()["count"] == 7
    assert "attestation-id" not in answer.headers
