"""Boots one after the other: an engine that ends, changes, or does not come back."""

import asyncio
import os

import pytest
from fakes.gateway import eventually
from fakes.supervised import SupervisedSite
from fakes.world import NOW

from attest import tokens
from attest.errors import ConfigurationError, ManifestMismatchError
from gateway.errors import EngineStartError, StartupRefusedError, UpstreamDownError


@pytest.fixture
def site(tmp_path):
    return SupervisedSite(tmp_path)


def keys(boot):
    return tokens.parse(boot.record, typ="eat+jwt").kid


async def test_engine_that_ended_is_verified_anew_with_another_key(site):
    await site.start_engine()
    async with site.run():
        await site.ready()
        await site.engine.stop()
        await site.ready(2)
        first, second = site.boots
        assert first.digest != second.digest
        assert keys(first) != keys(second)
        assert site.state.attester.boot.digest == second.digest
        assert site.pauses == [2.0]
        assert site.state.ready


async def test_between_two_boots_requests_are_refused_with_the_old_key(site):
    await site.start_engine()
    resume = asyncio.Event()

    async def on_pause():
        await resume.wait()
        await site.start_engine()

    site.on_pause = on_pause
    async with site.run():
        await site.ready()
        await site.engine.stop()
        await eventually(lambda: site.pauses)
        assert not site.state.ready
        with pytest.raises(UpstreamDownError):
            site.state.require_engine()
        assert site.state.require_serving().sealer.boot.digest == site.boots[0].digest
        resume.set()
        await site.ready(2)


async def test_restarts_are_bounded_and_pauses_grow(site):
    await site.start_engine()

    async def on_pause():
        """Nobody starts it again."""

    site.on_pause = on_pause
    async with site.run(engine={"start_timeout_seconds": 0.1, "restarts": 2}):
        await site.ready()
        await site.engine.stop()
        assert isinstance(await site.failed(), EngineStartError)
    assert site.pauses == [2.0, 4.0]


async def test_long_service_earns_the_restarts_back(site):
    await site.start_engine()
    async with site.run(engine={"restarts": 1}):
        for boots in (1, 2, 3):
            await site.ready(boots)
            site.time += 3600
            if boots < 3:
                await site.engine.stop()
    assert site.pauses == [2.0, 2.0]


async def test_no_restart_where_none_is_allowed(site):
    await site.start_engine()
    async with site.run(engine={"restarts": 0}):
        await site.ready()
        await site.engine.stop()
        assert "ended 1 times" in str(await site.failed())


async def test_first_start_that_fails_is_not_tried_again(site):
    await site.start_engine(models=[{"id": "x", "owned_by": "vllm"}], evidence=None)
    async with site.run():
        assert isinstance(await site.failed(), StartupRefusedError)
    assert not site.pauses


async def test_other_weights_after_a_restart_are_a_no_for_good(site):
    await site.start_engine()

    async def on_pause():
        await site.start_engine()
        load = site.engine.evidence["workers"][0]["loads"][0]
        load["root"] = "sha256:" + "0" * 64

    site.on_pause = on_pause
    async with site.run():
        await site.ready()
        await site.engine.stop()
        assert isinstance(await site.failed(), StartupRefusedError)
    assert len(site.pauses) == 1


# What `on_change` says.


def touch_weights(site):
    (site.model.root / "config.json").write_text("{}")


async def test_change_stops_for_good(site):
    await site.start_engine()
    async with site.run():
        await site.ready()
        original = (site.model.root / "config.json").read_bytes()
        touch_weights(site)
        await eventually(lambda: site.state.down)
        assert not site.state.ready
        assert "config.json" in site.state.progress
        with pytest.raises(UpstreamDownError) as caught:
            site.state.require_engine()
        assert "config.json" not in caught.value.text
        # Whoever changed it changes it back: too late.
        (site.model.root / "config.json").write_bytes(original)
        await asyncio.sleep(0.1)
        assert not site.state.ready
        assert len(site.boots) == 1


async def test_change_marks_and_goes_on(site):
    await site.start_engine()
    async with site.run(on_change="mark"):
        await site.ready()
        site.time += 100
        verified_at = site.state.attester.boot.weights.verified_at
        touch_weights(site)
        await eventually(lambda: site.state.attester.boot.weights.stale)
        weights = site.state.attester.boot.weights
        assert site.state.ready
        assert weights.measured == "asserted"
        assert weights.verified_at in (verified_at, NOW + 100)
        assert weights.stale["since"] == NOW + 100
        assert "config.json" in weights.stale["reason"]
        site.state.attester.mark_verified(NOW + 999)
        assert site.state.attester.boot.weights.verified_at < NOW + 999


async def test_marked_gateway_verifies_anew_when_the_engine_ends(site):
    await site.start_engine()
    async with site.run(on_change="mark"):
        await site.ready()
        touch_weights(site)
        await eventually(lambda: site.state.attester.boot.weights.stale)
        await site.engine.stop()
        assert isinstance(await site.failed(), ManifestMismatchError)


async def test_looks_update_when_it_was_verified(site):
    await site.start_engine()
    async with site.run():
        await site.ready()
        site.time += 50
        boot = site.state.attester
        await eventually(lambda: boot.boot.weights.verified_at == NOW + 50)
        assert boot.boot.digest == site.boots[0].digest


async def test_engine_that_another_process_took_over_is_a_new_boot(site):
    """The old one lives on; the socket is another's."""
    await site.start_engine()
    async with site.run():
        await site.ready()
        old = site.engine
        evidence = {**old.evidence, "started": old.evidence["started"]}
        found = site.state.attester.boot
        await site.start_engine(evidence=evidence | {"pid": os.getpid() + 1})
        # The kernel says that it is still this process, so that the report is a lie.
        await eventually(lambda: site.state.down)
        assert "listens on the socket" in site.state.progress
        assert site.state.attester.boot.digest == found.digest
        await old.stop()


async def test_configuration_error_ends_it(site):
    await site.start_engine()
    async with site.run(engine={"dtype": "bfloat16"}):
        assert isinstance(await site.failed(), ConfigurationError)
