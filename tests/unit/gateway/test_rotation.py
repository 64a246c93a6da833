"""Session keys that take over from each other while answers go out."""

import asyncio
import itertools

import httpx2
import pytest
from fakes.gateway import eventually
from fakes.supervised import SupervisedSite
from fakes.world import ANSWER, NOW, REQUEST

from attest import disclosures, tokens
from attest.bundle import Bundle
from attest.claims import Measured
from attest.dialects import Dialect
from attest.digests import digest
from attest.errors import FormatError, SignerError
from attest.policy import Policy
from attest.request import request_facts
from attest.transcript import Transcript
from attest.verify import verify
from gateway.app import build_app
from gateway.boot import CERTIFICATE_SECONDS, certify, session_key
from gateway.errors import StoreError, UpstreamDownError
from gateway.exchange import Exchange
from gateway.session_keys import certified_keys

TYP = "inference-attestation+jwt"


@pytest.fixture
def site(tmp_path):
    return SupervisedSite(tmp_path)


def exchange(number):
    transcript = Transcript(Dialect.CHAT)
    transcript.feed_body(ANSWER)
    return Exchange(
        id=f"att_{number:022d}",
        request_id="r",
        dialect=Dialect.CHAT,
        received=REQUEST,
        forwarded=REQUEST,
        facts=request_facts({"model": "tiny", "messages": []}, Dialect.CHAT),
        status=200,
        content_digest=digest(ANSWER),
        content_bytes=len(ANSWER),
        transcript=transcript,
        outcome=transcript.outcome(),
        ended_at=NOW,
    )


def claims_of(token):
    return tokens.parse(disclosures.split(token)[0], typ=TYP).claims


def kid(boot):
    return tokens.parse(boot.record, typ="eat+jwt").kid


async def test_answers_are_proven_across_a_rotation(site):
    """Before, during and after: no gap, no fork, each under the key of its record."""
    await site.start_engine()
    async with site.run(session_key_seconds=0.05):
        await site.ready()
        attester, first = site.state.attester, site.boots[0]
        sealed, numbers = [], itertools.count()
        rotated = False
        while not rotated or len(sealed) < 40:
            # At least one batch comes after it.
            rotated = attester.boot.digest != first.digest
            batch = [attester.seal(exchange(next(numbers))) for _ in range(8)]
            sealed += await asyncio.gather(*batch)
        policy = Policy(
            authorities=(site.model.authority.public,),
            min_measured=Measured.ASSERTED,
        )
        chains = {}
        for one in sealed:
            bundle = await attester.bundle(one.id)
            whole = Bundle(
                token=bundle.token,
                key_certificates=bundle.key_certificates,
                boot_record=bundle.boot_record,
                manifest=bundle.manifest,
                request=REQUEST,
                response=ANSWER,
            )
            assert verify(whole, policy, at=NOW).proven
            claims = claims_of(one.token)
            chains.setdefault(claims["boot"], []).append(claims["seq"])
        assert len(chains) > 1
        for numbers in chains.values():
            assert sorted(numbers) == list(range(len(numbers)))
        follows = tokens.parse(bundle.boot_record, typ="eat+jwt").claims["follows"]
        assert follows["count"] == len(chains[follows["boot"]])


async def published(site):
    """The kids at /.well-known/jwks.json, in their order."""
    transport = httpx2.ASGITransport(app=build_app(site.state))
    async with httpx2.AsyncClient(transport=transport, base_url="http://a") as client:
        answer = await client.get("/.well-known/jwks.json")
    return [key["kid"] for key in answer.json()["keys"]]


async def test_retained_keys_are_those_before_it_and_outlive_a_restart(site):
    await site.start_engine()
    async with site.run(session_key_seconds=0.05):
        await site.ready()
        first = kid(site.boots[0])
        attester = site.state.attester
        await eventually(lambda: kid(attester.boot) != first)
        assert first in await published(site)
    await site.start_engine()
    async with site.run():
        await site.ready(2)
        present, *others = await published(site)
        assert present == kid(site.boots[1])
        assert first in others


def signer_that_fails(site, monkeypatch):
    def fail(*args, **options):
        raise SignerError("signer: out of reach")

    monkeypatch.setattr("gateway.rotation.certify", fail)


async def test_signer_out_of_reach_keeps_the_old_key(site, monkeypatch):
    signer_that_fails(site, monkeypatch)
    await site.start_engine()
    async with site.run(session_key_seconds=0.02):
        await site.ready()
        boot = site.state.attester.boot
        await asyncio.sleep(0.1)
        assert site.state.attester.boot.session is boot.session
        assert site.state.ready


async def test_key_that_ran_out_refuses_and_a_later_rotation_serves_again(
    site, monkeypatch
):
    signer_that_fails(site, monkeypatch)
    await site.start_engine()
    async with site.run(session_key_seconds=0.02):
        await site.ready()
        site.time += CERTIFICATE_SECONDS + 1
        await eventually(lambda: not site.state.ready)
        with pytest.raises(UpstreamDownError):
            site.state.require_engine()
        monkeypatch.setattr("gateway.rotation.certify", certify)
        await eventually(lambda: site.state.ready)


async def test_rotation_never_undoes_another_refusal(site):
    await site.start_engine()
    async with site.run(session_key_seconds=0.02):
        await site.ready()
        site.state.refuse_all("what was verified has changed")
        first = site.state.attester.boot.digest
        await eventually(lambda: site.state.attester.boot.digest != first)
        assert not site.state.ready


async def test_record_that_cannot_be_kept_leaves_the_old_key_and_chain(
    site, monkeypatch
):
    await site.start_engine()
    async with site.run():
        await site.ready()
        attester = site.state.attester
        before = await attester.seal(exchange(0))

        async def full(*_):
            raise StoreError("store: full")

        monkeypatch.setattr(site.store, "put_boot", full)
        session = certify(
            site.model.issuer, "gateway.test", attester.boot.manifest, now=NOW
        )
        with pytest.raises(StoreError):
            await attester.rotate(session)
        after = await attester.seal(exchange(1))
        assert claims_of(after.token)["seq"] == 1
        assert claims_of(after.token)["boot"] == claims_of(before.token)["boot"]


async def test_stale_boot_stays_stale_under_the_next_key(site):
    await site.start_engine()
    async with site.run():
        await site.ready()
        attester = site.state.attester
        attester.mark_stale(NOW, "files changed")
        session = certify(
            site.model.issuer, "gateway.test", attester.boot.manifest, now=NOW
        )
        await attester.rotate(session)
        record = tokens.parse(attester.boot.record, typ="eat+jwt").claims
        assert record["weights"]["measured"] == "asserted"
        claims = claims_of((await attester.seal(exchange(0))).token)
        assert claims["stale"]["reason"] == "files changed"


async def test_only_keys_whose_certificates_run_are_published(site):
    await site.start_engine()
    async with site.run():
        await site.ready()
        boot = site.state.attester.boot
        keys = site.state.session_keys
        assert await keys.running() == (boot.session.key.public,)
        _, ends = session_key(boot.session.certificate)
        site.time = ends
        assert await keys.running() == ()


def test_refusal_has_no_key():
    assert certified_keys(b'{"keyCertificate": "x"}') == ()


def test_what_is_no_certificate_has_no_key():
    with pytest.raises(FormatError):
        session_key("a.b.c")
