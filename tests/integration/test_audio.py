"""Speech on real parts: gateway, vLLM with a Whisper, the stock SDK."""

import time
from dataclasses import replace

import pytest
from fakes.site import Site
from fakes.tiny_whisper import make_recording, make_tiny_whisper

from attest import tokens
from attest.bundle import Bundle
from attest.client import openai_client
from attest.verify import verify
from gateway.http import httpx

pytestmark = [
    pytest.mark.engine,
    # What the SDK says of its translations.
    pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning"),
]

SOUND = make_recording()
FILE = {"file": ("a.wav", SOUND, "audio/wav"), "model": "tiny"}
PATHS = {"transcriptions": "transcription.chunk", "translations": "translation.chunk"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("site"), make_tiny_whisper)
    site.start()
    yield site
    site.close()


@pytest.fixture
def client(site):
    def keep(*found):
        site.evidence.append(found)

    with openai_client(f"{site.url}/v1", site.policy, on_evidence=keep) as client:
        yield client


def say(client, name, **more):
    resource = getattr(client.audio, name)
    return resource.create(**FILE, extra_body={"language": "en", **more})


@pytest.mark.parametrize("name", PATHS)
def test_body_is_proven(site, client, name):
    text = say(client, name).text
    assert len(text) > 20
    verdict, _ = site.evidence[-1]
    assert verdict.claims["weights"]["measured"] == "engine"
    assert verdict.claims["res"]["outcome"] == "complete"
    assert verdict.claims["gen_ai.request.model"] == "tiny"


@pytest.mark.parametrize("name", PATHS)
def test_stream_is_proven_and_says_the_same(site, client, name):
    whole = say(client, name, temperature="0").text
    out = site.evidence[-1][0].disclosed["out.0"]
    with getattr(client.audio, name).with_streaming_response.create(
        **FILE, extra_body={"language": "en", "temperature": "0", "stream": "true"}
    ) as response:
        body = b"".join(response.iter_bytes()).decode()
    assert PATHS[name] in body
    assert body.rstrip().endswith("data: [DONE]")
    verdict, bundle = site.evidence[-1]
    assert verdict.disclosed["out.0"] == out
    assert verdict.claims["res"]["stream"] is True
    assert len(whole) > 20
    assert verify(bundle, site.policy, at=int(time.time())).step(6).status == "ok"


def test_stream_of_the_stock_sdk(client):
    whole = say(client, "transcriptions", temperature="0").text
    events = client.audio.transcriptions.create(
        **FILE, stream=True, language="en", temperature=0
    )
    assert "".join(e.choices[0]["delta"]["content"] for e in events) == whole


def test_another_recording_is_another_request(site, client):
    say(client, "transcriptions")
    _, bundle = site.evidence[-1]
    at = int(time.time())
    assert verify(bundle, site.policy, at=at).proven
    swapped = bundle.request.replace(SOUND, make_recording(hertz=1000))
    assert swapped != bundle.request
    verdict = verify(replace(bundle, request=swapped), site.policy, at=at)
    assert verdict.problem.name == "content"


def test_recording_that_is_none_is_an_attested_error(site):
    answer = httpx.post(
        f"{site.url}/v1/audio/transcriptions",
        data={"model": "tiny"},
        files={"file": ("a.wav", b"no sound", "audio/wav")},
        timeout=60,
    )
    assert answer.status_code == 400
    kept = httpx.get(f"{site.url}/v1/attestations/{answer.headers['attestation-id']}")
    verdict = verify(Bundle.loads(kept.content), site.policy, at=int(time.time()))
    assert verdict.step(4).status == "ok"
    assert verdict.claims["res"]["status"] == 400


def test_boot_record_has_no_canary(site, client):
    """Such an engine completes no text, so that it can't be asked."""
    say(client, "transcriptions")
    record = tokens.parse(site.evidence[-1][1].boot_record, typ="eat+jwt")
    assert "canary" not in record.claims
    assert record.claims["weights"]["measured"] == "engine"
