import asyncio
import json
import shutil
import subprocess
from pathlib import Path

import httpx2
import pytest
from fakes.gateway import CHAT, chat_body, eventually, running_gateway
from fakes.upstream import HANG, Answer, chunk, head, json_answer
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from attest import __version__
from gateway.auth import ApiKeys
from gateway.errors import StoreError
from gateway.metrics import PREFIX, Clock
from gateway.scrape import MetricsPage, StateCollector
from gateway.settings import LimitSettings
from gateway.state import AppState
from gateway.store.records import Record

VECTORS = Path(__file__).parents[2] / "vectors" / "vllm-0.32"
BODY = (VECTORS / "chat.response.json").read_bytes()
STREAM = (VECTORS / "chat_stream.response.sse").read_bytes()
EVENT = STREAM.partition(b"\n\n")[0] + b"\n\n"
JSON = {"content-type": "application/json"}
SECRET = "the-prompt-that-nobody-may-see"


async def fetch(state, path="/metrics", method="GET"):
    transport = httpx2.ASGITransport(app=MetricsPage(state))
    async with httpx2.AsyncClient(transport=transport, base_url="http://a") as client:
        return await client.request(method, path)


async def scrape(state):
    """Value of each sample by name and labels."""
    page = (await fetch(state)).text
    return {
        (s.name.removeprefix("attest_gateway_"), *sorted(s.labels.values())): s.value
        for family in text_string_to_metric_families(page)
        for s in family.samples
    }


@pytest.fixture
def starting():
    return AppState(LimitSettings(), ApiKeys())


async def test_answer_is_counted_and_timed(gateway):
    gateway.engine.answer(json_answer(BODY))
    await gateway.verify(await gateway.chat())
    found = await scrape(gateway.state)
    assert found["responses_attested_total", CHAT, "complete"] == 1
    for name in (
        "signing_duration_seconds",
        "store_write_duration_seconds",
        "upstream_request_duration_seconds",
        "added_latency_seconds",
    ):
        assert found[f"{name}_count",] == 1
        assert found[f"{name}_sum",] > 0
    await eventually(lambda: gateway.state.in_flight == 0)
    found = await scrape(gateway.state)
    assert found["request_duration_seconds_count", CHAT] == 1


async def test_engine_and_added_latency_are_the_whole(gateway):
    gateway.engine.answer(json_answer(BODY))
    await gateway.chat()
    await eventually(lambda: gateway.state.in_flight == 0)
    found = await scrape(gateway.state)
    parts = ("upstream_request_duration_seconds_sum", "added_latency_seconds_sum")
    whole = found["request_duration_seconds_sum", CHAT]
    assert 0 < sum(found[name,] for name in parts) <= whole


async def test_attested_refusal_is_an_outcome_without_engine(gateway):
    await gateway.chat(b"{")
    found = await scrape(gateway.state)
    assert found["responses_attested_total", CHAT, "refused"] == 1
    assert found["upstream_request_duration_seconds_count",] == 0


async def test_unattested_refusal_names_its_reason(tmp_path):
    async with running_gateway(tmp_path, api_keys=(b"\0" * 32,)) as gateway:
        assert (await gateway.chat()).status_code == 401
        found = await scrape(gateway.state)
    assert found["responses_refused_total", CHAT, "authentication"] == 1
    assert ("request_duration_seconds_count", CHAT) not in found


async def test_withheld_answer_is_a_failure(gateway):
    gateway.engine.answer(json_answer(BODY))
    assert (await scrape(gateway.state))["attestation_failures_total", "store"] == 0
    gateway.attester.fail_with = StoreError("disk full")
    assert (await gateway.chat()).status_code == 503
    found = await scrape(gateway.state)
    assert found["attestation_failures_total", "store"] == 1
    assert not [key for key in found if key[0] == "responses_attested_total"]


async def test_failed_transaction_of_the_store_is_told(gateway):
    gateway.engine.answer(json_answer(BODY))
    failed = gateway.state.metrics.store_failures
    store = gateway.attester._store
    store.on_failure = failed.inc
    await gateway.chat()
    row = Record.of(gateway.exchange.id, gateway.attester.boot.digest, 0, "twice")
    with pytest.raises(StoreError):
        await store.put(row)
    assert (await scrape(gateway.state))["store_write_failures_total",] == 1


async def test_what_is_served_and_until_when(gateway):
    found = await scrape(gateway.state)
    manifest = gateway.world.manifest
    assert found["manifest_info", manifest.digest] == 1
    assert found["manifest_not_after_timestamp_seconds",] == manifest.not_after
    assert found["key_not_after_timestamp_seconds",] > 0
    verified = gateway.attester.boot.weights.verified_at
    assert found["last_verified_timestamp_seconds",] == verified
    assert found["ready",] == 1
    gateway.state.refuse_all("changed")
    assert (await scrape(gateway.state))["ready",] == 0


async def test_stream_in_progress_is_seen(gateway):
    gateway.engine.answer(Answer([head(), chunk(EVENT), HANG]))
    body = json.dumps(chat_body(stream=True)).encode()
    async with gateway.client.stream("POST", CHAT, content=body, headers=JSON):
        found = await scrape(gateway.state)
        assert found["streams_in_progress",] == found["requests_in_flight",] == 1
    await eventually(lambda: gateway.state.in_flight == 0)
    found = await scrape(gateway.state)
    assert found["streams_in_progress",] == 0
    assert found["responses_attested_total", CHAT, "client_disconnected"] == 1


async def test_nothing_is_claimed_before_the_start_is_through(starting):
    found = await scrape(starting)
    assert found["ready",] == 0
    told = ("_timestamp_seconds", "_info")
    assert [key for key in found if key[0].endswith(told)] == [
        ("build_info", __version__)
    ]


async def test_no_content_in_a_label(gateway):
    body = chat_body(model=SECRET, user=SECRET)
    body["messages"][0]["content"] = SECRET
    gateway.engine.answer(json_answer(BODY))
    fields = {"x-request-id": SECRET, "attestation-nonce": SECRET}
    await gateway.chat(json.dumps(body).encode(), headers=fields)
    await gateway.chat(path=f"/v1/{SECRET}")
    await gateway.chat(path=f"{CHAT}?q={SECRET}")
    page = (await fetch(gateway.state)).text
    assert SECRET not in page
    for name in (gateway.exchange.id, gateway.exchange.request_id, "hello"):
        assert name not in page


def test_names_are_in_base_units_and_told_in_words(starting):
    for family in StateCollector(starting).collect():
        assert family.name.startswith("attest_gateway_")
        assert family.documentation.endswith(".")
        if family.type == "histogram":
            assert family.name.endswith("_seconds")


def test_two_processes_in_one_interpreter_share_nothing(starting):
    other = AppState(LimitSettings(), ApiKeys())
    starting.metrics.hashing.set(3)
    found = {f.name: f for f in StateCollector(other).collect()}
    name = "attest_gateway_weights_verification_duration_seconds"
    assert found[name].samples[0].value == 0


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool")
async def test_promtool_finds_no_fault(gateway):
    gateway.engine.answer(json_answer(BODY))
    await gateway.chat()
    page = (await fetch(gateway.state)).content
    command = ["promtool", "check", "metrics"]
    done = await asyncio.to_thread(
        subprocess.run, command, input=page, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


async def test_only_the_page_is_served(starting):
    assert (await fetch(starting, "/v1/models")).status_code == 404
    assert (await fetch(starting, method="POST")).status_code == 405


SECONDS = st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 7.0]), max_size=9)


@given(st.dictionaries(st.sampled_from(["/a", "/b"]), SECONDS))
def test_clock_shows_what_the_librarys_histogram_shows(found):
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    clock = Clock("x_seconds", "How long.", (0.5, 1, 2), "endpoint")
    ours.register(clock)
    histogram = Histogram(
        "x_seconds",
        "How long.",
        ("endpoint",),
        namespace=PREFIX,
        registry=theirs,
        buckets=(0.5, 1, 2),
    )
    for path, times in found.items():
        for seconds in times:
            clock.observe(seconds, path)
            histogram.labels(path).observe(seconds)
    pages = [generate_latest(registry).decode() for registry in (ours, theirs)]
    lines = [
        [line for line in page.splitlines() if "_created" not in line] for page in pages
    ]
    assert lines[0] == lines[1]


def test_clock_without_a_label_begins_at_zero():
    registry = CollectorRegistry()
    registry.register(Clock("x_seconds", "How long.", (1,)))
    page = generate_latest(registry).decode()
    assert f'{PREFIX}_x_seconds_bucket{{le="+Inf"}} 0.0' in page.splitlines()
