import asyncio
import itertools
import json
from dataclasses import replace

import msgspec
import pytest
from fakes.canonical import EDGES, VALUES, form, form_of_the_library
from fakes.world import ANSWER, GATEWAY, NOW, REQUEST, SYSTEM_PROMPT, make_world
from hypothesis import given
from hypothesis import strategies as st

from attest import disclosures, tokens
from attest.bundle import Bundle
from attest.claims import EAT_PROFILE, Measured, Outcome
from attest.dialects import Dialect
from attest.digests import digest
from attest.request import prompt_digest, request_facts
from attest.transcript import Transcript
from attest.verify import verify
from gateway.attestations import (
    Attester,
    canonical_json,
    private_claims,
    public_claims,
)
from gateway.boot import Boot, Session, WeightsReport
from gateway.errors import StoreError
from gateway.exchange import Exchange
from gateway.store.sqlite import SqliteStore

TYP = "inference-attestation+jwt"


@pytest.fixture(scope="module")
def world():
    return make_world()


@pytest.fixture
def boot(world):
    weights = WeightsReport(
        world.manifest.tensor_root, world.manifest.tensor_count, Measured.ENGINE, NOW
    )
    session = Session(world.session, world.certificate, GATEWAY)
    return Boot(session, world.manifest, world.envelope, weights, world.boot)


@pytest.fixture
def store(tmp_path, boot):
    store = SqliteStore.open(tmp_path / "attestations.sqlite")
    store.add_boot(boot.digest, boot.endorsements())
    yield store
    store.close()


@pytest.fixture
def attester(boot, store):
    return Attester(boot, store, lambda: NOW + 0.9)


def exchange(request=REQUEST, answer=ANSWER, **changes):

    transcript = Transcript(Dialect.CHAT)
    transcript.feed_body(answer)
    fields = {
        "request_id": "r",
        "dialect": Dialect.CHAT,
        "received": request,
        "forwarded": request,
        "facts": request_facts(json.loads(request), Dialect.CHAT),
        "status": 200,
        "content_digest": digest(answer),
        "content_bytes": len(answer),
        "transcript": transcript,
        "outcome": transcript.outcome(),
        "ended_at": NOW + 0.5,
    }
    return Exchange(**{**fields, **changes})


def in_the_clear(found, boot):
    return public_claims(found, boot, prompt=prompt_digest(found.facts))


def claims_of(token):
    return tokens.parse(disclosures.split(token)[0], typ=TYP).claims


async def test_sealed_answer_is_proven(world, attester):
    sealed = await attester.seal(exchange(nonce="n" * 16))
    bundle = await attester.bundle(sealed.id)
    assert bundle.token == sealed.token
    whole = Bundle(
        token=bundle.token,
        key_certificates=bundle.key_certificates,
        boot_record=bundle.boot_record,
        manifest=bundle.manifest,
        request=REQUEST,
        response=ANSWER,
    )
    verdict = verify(whole, world.policy, at=NOW + 5, nonce="n" * 16)
    verdict.raise_unless_proven()
    assert verdict.tier == "T1"


async def test_sequence_is_an_unbroken_chain(attester):
    sealed = await asyncio.gather(*(attester.seal(exchange()) for _ in range(20)))
    chain = sorted((claims_of(s.token) for s in sealed), key=lambda c: c["seq"])
    by_seq = {claims_of(s.token)["seq"]: s.token for s in sealed}
    assert [claims["seq"] for claims in chain] == list(range(20))
    assert chain[0]["prev"] is None
    for earlier, later in itertools.pairwise(chain):
        compact = disclosures.split(by_seq[earlier["seq"]])[0]
        assert later["prev"] == tokens.signing_digest(compact)


async def test_token_is_not_given_out_when_it_cannot_be_kept(boot):
    class Full:
        async def put(self, record):
            raise StoreError("store: full")

    attester = Attester(boot, Full(), lambda: NOW)
    attester.opened("att_x")
    with pytest.raises(StoreError):
        await attester.seal(exchange(id="att_x"))
    assert not attester.is_open("att_x")


async def test_id_is_open_until_it_is_sealed(attester):
    attester.opened("att_x")
    assert attester.is_open("att_x")
    await attester.seal(exchange(id="att_x"))
    assert not attester.is_open("att_x")


async def test_cancelled_request_leaves_its_record(attester, store):
    task = asyncio.create_task(attester.seal(exchange(id="att_x")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await attester.seal(exchange())
    assert await store.get("att_x") is not None


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [(SYSTEM_PROMPT, "governed"), (SYSTEM_PROMPT + " ", "unlisted"), (None, "absent")],
)
def test_system_prompt_kind(boot, prompt, kind):

    messages = [{"role": "user", "content": "hi"}]
    if prompt is not None:
        messages.insert(0, {"role": "system", "content": prompt})
    request = json.dumps({"model": "m", "messages": messages}).encode()
    claims = in_the_clear(exchange(request), boot)
    assert claims["system_prompt"] == kind


def test_what_is_said_in_the_clear(world, boot):
    found = exchange(
        id="att_x", nonce="n" * 16, forwarded=REQUEST + b" ", overrides=("user",)
    )
    answer = json.loads(ANSWER)
    manifest = world.manifest
    assert in_the_clear(found, boot) == {
        "iss": GATEWAY,
        "jti": "att_x",
        "toe": NOW,
        "sub": answer["id"],
        "eat_profile": EAT_PROFILE,
        "eat_nonce": "n" * 16,
        "boot": boot.digest,
        "manifest": {"digest": manifest.digest},
        "constitution": manifest.constitution,
        "weights": {
            "root": manifest.tensor_root,
            "measured": "engine",
            "verified_at": NOW,
        },
        "gen_ai.request.model": json.loads(REQUEST)["model"],
        "gen_ai.response.model": answer["model"],
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": answer["usage"]["prompt_tokens"],
        "gen_ai.usage.output_tokens": answer["usage"]["completion_tokens"],
        "system_prompt": "governed",
        "altered": True,
        "overrides": ("user",),
        "res": {
            "status": 200,
            "content_digest": digest(ANSWER),
            "content_bytes": len(ANSWER),
            "stream": False,
            "outcome": "complete",
            "choices": 1,
        },
    }


TEXT = st.text(st.characters(codec="utf-8"), max_size=20)


@given(model=TEXT, nonce=TEXT, overrides=st.lists(TEXT, max_size=2).map(tuple))
def test_quick_encoder_says_what_the_ordinary_one_says(world, model, nonce, overrides):
    session = Session(world.session, world.certificate, GATEWAY)
    weights = WeightsReport(world.manifest.tensor_root, 1, Measured.ENGINE, NOW)
    boot = Boot(session, world.manifest, world.envelope, weights, world.boot)
    found = exchange(nonce=nonce, overrides=overrides)
    found.facts = replace(found.facts, model=model)
    claims = in_the_clear(found, boot)
    said = [
        tokens.parse(tokens.mint(TYP, claims, world.session, **way), typ=TYP).claims
        for way in ({}, {"encode": msgspec.json.encode})
    ]
    assert said[0] == said[1]


def test_lone_surrogate_in_the_system_prompt_is_unlisted(boot):
    request = b'{"model":"m","messages":[{"role":"system","content":"\\ud800"}]}'
    found = exchange(request)
    assert in_the_clear(found, boot)["system_prompt"] == "unlisted"
    assert "request.semantic_digest" not in private_claims(found)


def test_refusal_without_an_answer(boot):
    found = exchange(
        transcript=None, status=503, outcome=Outcome.REFUSED, content_digest=digest(b"")
    )
    claims = in_the_clear(found, boot)
    assert claims["res"]["choices"] == 0
    assert "gen_ai.response.model" not in claims
    assert "out.0" not in private_claims(found)


def test_forwarded_digest_appears_only_where_the_gateway_changed_the_body():
    assert "request.forwarded_digest" not in private_claims(exchange())
    changed = private_claims(exchange(forwarded=REQUEST + b" "))
    assert changed["request.forwarded_digest"] == digest(REQUEST + b" ")
    assert changed["request.digest"] == digest(REQUEST)


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [(SYSTEM_PROMPT, "governed"), (SYSTEM_PROMPT + " ", "unlisted"), (None, "absent")],
)
async def test_clear_and_salted_claims_speak_of_one_system_prompt(
    attester, prompt, kind
):
    messages = [{"role": "user", "content": "hi"}]
    if prompt is not None:
        messages.insert(0, {"role": "system", "content": prompt})
    request = json.dumps({"model": "m", "messages": messages}).encode()
    sealed = await attester.seal(exchange(request))
    compact, opened = disclosures.split(sealed.token)
    claims = claims_of(compact)
    revealed = disclosures.reveal(claims, opened)
    assert claims["system_prompt"] == kind
    expected = None if prompt is None else digest(prompt.encode())
    assert revealed.get("system_prompt.digest") == expected


async def test_no_content_in_the_clear_part(attester):
    sealed = await attester.seal(exchange())
    compact, *_ = sealed.token.split("~")
    clear = str(claims_of(compact))
    assert "Paris" not in clear
    assert digest(REQUEST) not in clear


async def test_token_of_an_ordinary_chat_fits_a_header(attester):
    sealed = await attester.seal(exchange(nonce="n" * 32))
    assert len(sealed.token) < 3000


async def test_look_that_found_all_well_moves_the_time_alone(attester, boot):
    before = attester.boot
    attester.mark_verified(NOW + 60)
    claims = in_the_clear(exchange(), attester.boot)
    assert claims["weights"]["verified_at"] == NOW + 60
    assert claims["weights"]["measured"] == "engine"
    assert attester.boot.digest == before.digest


async def test_stale_token_claims_no_measurement_and_default_policy_refuses_it(
    attester, world
):
    attester.mark_stale(NOW + 60, "changed: model.safetensors" + "x" * 500)
    attester.mark_verified(NOW + 90)
    sealed = await attester.seal(exchange())
    bundle = await attester.bundle(sealed.id)
    policy = world.policy
    verdict = verify(bundle, policy, at=NOW + 100)
    assert not verdict.proven
    assert "measured by asserted" in verdict.step(10).detail
    assert verdict.claims["stale"]["since"] == NOW + 60
    assert len(verdict.claims["stale"]["reason"]) <= 200
    assert verdict.claims["weights"]["verified_at"] == NOW
    lenient = replace(policy, min_measured=Measured.ASSERTED)
    assert verify(bundle, lenient, at=NOW + 100).proven


async def test_answer_with_128_choices_is_proven(world, attester):
    """The most that is served: its disclosures outgrow every header."""
    value = json.loads(ANSWER)
    choice = value["choices"][0]
    value["choices"] = [{**choice, "index": index} for index in range(128)]
    answer = json.dumps(value).encode()
    request = json.dumps({**json.loads(REQUEST), "n": 128}).encode()
    sealed = await attester.seal(exchange(request, answer))
    bundle = await attester.bundle(sealed.id)
    verdict = verify(replace(bundle, response=answer), world.policy, at=NOW + 5)
    verdict.raise_unless_proven()
    assert "out.127" in verdict.disclosed


@given(VALUES)
def test_quick_canonical_form_is_that_of_the_library(value):
    assert form(canonical_json, value) == form_of_the_library(value)


@pytest.mark.parametrize("value", EDGES)
def test_quick_canonical_form_at_its_edges(value):
    assert form(canonical_json, value) == form_of_the_library(value)
