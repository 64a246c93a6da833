"""The main job on real parts: gateway, vLLM, the stock SDK, the offline verifier."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.processes import alive, descendants, eventually, group
from fakes.site import READY_SECONDS, Site
from fakes.tiny_model import make_tiny_llama

from attest import tokens
from attest.bundle import Bundle
from attest.client import openai_client
from attest.client.anthropic import anthropic_client
from attest.delivery import split_stream
from attest.verify import verify
from gateway.http import httpx

pytestmark = pytest.mark.engine

ASK = {"model": "tiny", "max_tokens": 8, "temperature": 0}
USER = [{"role": "user", "content": "an unmistakable prompt"}]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    root = tmp_path_factory.mktemp("site")
    site = Site(root, make_tiny_llama, "--max-model-len", "512")
    site.phases = site.start()
    yield site
    site.close()


@pytest.fixture
def client(site):
    def keep(*found):
        site.evidence.append(found)

    with openai_client(f"{site.url}/v1", site.policy, on_evidence=keep) as client:
        yield client


def test_readiness_said_what_was_going_on(site):
    assert {"starting engine", "ready"} <= site.phases


def test_chat_is_proven(site, client):
    answer = client.chat.completions.create(messages=USER, **ASK)
    assert answer.choices[0].message.role == "assistant"
    verdict, _ = site.evidence[-1]
    assert (verdict.tier, verdict.claims["weights"]["measured"]) == ("T1", "engine")


def test_streamed_chat_is_proven_and_says_the_same(site, client):
    whole = client.chat.completions.create(messages=USER, **ASK)
    out = site.evidence[-1][0].disclosed["out.0"]
    chunks = client.chat.completions.create(messages=USER, stream=True, **ASK)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == (whole.choices[0].message.content or "")
    assert site.evidence[-1][0].disclosed["out.0"] == out


def test_completion_plain_and_streamed(site, client):
    whole = client.completions.create(prompt="abc", **ASK)
    chunks = client.completions.create(prompt="abc", stream=True, **ASK)
    assert "".join(c.choices[0].text for c in chunks) == whole.choices[0].text


def test_responses_plain_and_streamed(site, client):
    asked = {"model": "tiny", "input": "abc", "max_output_tokens": 8, "temperature": 0}
    whole = client.responses.create(**asked).output_text
    out = site.evidence[-1][0].disclosed["out.0"]
    events = client.responses.create(**asked, stream=True)
    said = [e.delta for e in events if e.type == "response.output_text.delta"]
    assert "".join(said) == whole
    assert len(whole) == 8
    assert site.evidence[-1][0].disclosed["out.0"] == out


def test_messages_plain_and_streamed(site):
    asked = {"model": "tiny", "max_tokens": 8, "messages": USER}
    asked["extra_body"] = {"temperature": 0}
    found = []

    def keep(verdict, _):
        found.append(verdict.disclosed["out.0"])

    with anthropic_client(site.url, site.policy, on_evidence=keep) as client:
        whole = client.messages.create(**asked).content[0].text
        with client.messages.stream(**asked) as stream:
            assert stream.get_final_text() == whole
    assert len(whole) == 8
    assert found[0] == found[1]


SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
MEMBERS = {
    "two choices": {"n": 2, "temperature": 1, "seed": 1},
    "log-probabilities": {"logprobs": True, "top_logprobs": 2},
    "structured output": {
        "max_tokens": 64,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": SCHEMA},
        },
    },
    "usage": {"stream_options": {"include_usage": True}},
    "two stops": {"stop": ["a", "e"]},
}


@pytest.mark.parametrize("name", MEMBERS)
def test_members_plain_and_streamed(site, client, name):
    asked = {"messages": USER, **ASK, **MEMBERS[name]}
    for _ in client.chat.completions.create(stream=True, **asked):
        pass
    streamed = site.evidence[-1][0]
    asked.pop("stream_options", None)
    answer = client.chat.completions.create(**asked)
    whole = site.evidence[-1][0]
    outs = [f"out.{index}" for index in range(len(answer.choices))]
    assert whole.claims["res"]["choices"] == len(outs)
    assert [streamed.disclosed[out] for out in outs] == [
        whole.disclosed[out] for out in outs
    ]


@pytest.mark.parametrize(
    ("prompt", "kind"), [("Be brief.", "governed"), ("Be evil.", "unlisted")]
)
def test_system_prompt_shows_in_the_token(site, client, prompt, kind):
    messages = [{"role": "system", "content": prompt}, *USER]
    client.chat.completions.create(messages=messages, **ASK)
    assert site.evidence[-1][0].claims["system_prompt"] == kind


def test_bundle_from_the_gateway_proves_the_kept_answer(site, client):
    client.chat.completions.create(messages=USER, **ASK)
    verdict, kept = site.evidence[-1]
    served = httpx.get(f"{site.url}/v1/attestations/{verdict.claims['jti']}")
    bundle = Bundle.loads(served.content)
    assert bundle.token == kept.token
    assert verify(bundle, site.policy, at=int(time.time())).proven
    assert verify(kept, site.policy, at=int(time.time())).step(6).status == "ok"


def test_error_of_the_engine_is_attested(site):
    answer = httpx.post(
        f"{site.url}/v1/chat/completions", json={**ASK, "model": "no", "messages": USER}
    )
    assert answer.status_code == 404
    assert answer.headers["attestation-id"]


def test_prompt_and_answer_are_in_no_log_and_no_store(site, client):
    client.chat.completions.create(messages=USER, **ASK)
    places = [p for p in (site.root / "state").rglob("*") if p.is_file()]
    for path in [*places, site.root / "gateway.log"]:
        assert b"unmistakable" not in path.read_bytes(), path


def test_second_gateway_on_the_same_port_says_so(site):
    arguments = [
        *(sys.executable, "-m", "gateway.cli", "serve"),
        *("--model", site.model, "--authority", site.root / "authority.pem"),
        *("--signer", f"file:{site.root / 'issuer.pem'}"),
        *("--state-dir", site.root / "other", "--port", str(site.port)),
    ]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "Address already in use" in done.stderr
    assert "set another port" in done.stderr


def until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def is_api_server(pid):
    """It has the socket; the keeper above it has the same words behind its own."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes()
    return b"api_server.entry" in words and b"keeper.py" not in words


def broken_stream(site, break_it):
    """A stream that breaks off: its attestation's id, and the bytes that came.

    A model so small may have said all before anybody gets the first word. But these are
    megabytes, more than connections hold, and nobody reads on while it is broken.
    """
    asked = {**ASK, "max_tokens": 400, "messages": USER, "stream": True}
    asked |= {"ignore_eos": True, "logprobs": True, "top_logprobs": 20}
    asked |= {"n": 4, "temperature": 1}
    pieces = []

    def gather(response):
        for piece in response.iter_raw():
            if not pieces:
                break_it()
            pieces.append(piece)

    url = f"{site.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=asked, timeout=60) as response:
        assert response.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            gather(response)
        return response.headers["attestation-id"], b"".join(pieces)


def test_engine_killed_in_a_stream_is_told_and_then_another_boot(site, client):
    """The client sees a stream that never ends, and a token that says so; then 503s.

    The tokens of this boot and of the next verify, with one client.
    """
    client.chat.completions.create(messages=USER, **ASK)
    before, kept = site.evidence[-1]
    [server] = filter(is_api_server, descendants(site.process.pid))
    engine = group(os.getpgid(server))
    assert len(engine) >= 4  # keeper, API server, engine core, worker
    name, received = broken_stream(site, lambda: os.kill(server, signal.SIGKILL))
    assert b"[DONE]" not in received
    covered, token = split_stream(received)
    served = httpx.get(f"{site.url}/v1/attestations/{name}")
    cut = replace(Bundle.loads(served.content), response=covered)
    assert token in {None, cut.token}
    verdict = verify(cut, site.policy, at=int(time.time()))
    assert (verdict.step(4).status, verdict.step(6).status) == ("ok", "ok")
    assert verdict.claims["res"]["outcome"] == "upstream_error"
    assert verdict.problem.name == "policy"
    until(lambda: httpx.get(f"{site.url}/readyz").status_code != 200, 60)
    answer = httpx.post(
        f"{site.url}/v1/chat/completions", json={**ASK, "messages": USER}
    )
    assert answer.status_code == 503
    served = httpx.get(f"{site.url}/v1/attestations/{answer.headers['attestation-id']}")
    assert Bundle.loads(served.content).boot_record == kept.boot_record
    until(lambda: httpx.get(f"{site.url}/readyz").status_code == 200, READY_SECONDS)
    assert eventually(lambda: not any(map(alive, engine)))
    client.chat.completions.create(messages=USER, **ASK)
    after, fresh = site.evidence[-1]
    assert after.claims["boot"] != before.claims["boot"]
    assert after.claims["weights"]["measured"] == "engine"
    for bundle in (kept, fresh):
        assert verify(bundle, site.policy, at=int(time.time())).proven
    canaries = [
        tokens.parse(bundle.boot_record, typ="eat+jwt").claims["canary"]
        for bundle in (kept, fresh)
    ]
    assert canaries[0] == canaries[1]


def test_clean_end(site):
    """Last: it ends what the other tests ask. What is under way is finished first."""
    processes = descendants(site.process.pid)
    asked = {**ASK, "max_tokens": 300, "messages": USER, "stream": True}
    url = f"{site.url}/v1/chat/completions"
    pieces = []
    with httpx.stream("POST", url, json=asked | {"ignore_eos": True}) as response:
        for piece in response.iter_raw():
            if not pieces:
                site.process.send_signal(signal.SIGTERM)
            pieces.append(piece)
    received = b"".join(pieces)
    assert received.endswith(b"data: [DONE]\n\n")
    assert split_stream(received)[1] is not None
    assert site.process.wait(60) == 0
    assert eventually(lambda: not any(map(alive, processes)))
