"""Weights or engine are exchanged once the gateway serves: no token says otherwise."""

import asyncio

import pytest
from fakes.gateway import eventually
from fakes.supervised import SupervisedSite

from gateway.errors import UpstreamDownError


@pytest.fixture
def site(tmp_path):
    return SupervisedSite(tmp_path)


def other_shard(site):
    path = site.model.root / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    return path, bytes(data)


@pytest.mark.parametrize("how", ["in_place", "renamed_over"])
async def test_shard_replaced_on_disk(site, tmp_path, how):
    await site.start_engine()
    async with site.run():
        await site.ready()
        path, data = other_shard(site)
        if how == "in_place":
            path.write_bytes(data)
        else:
            (tmp_path / "other").write_bytes(data)
            (tmp_path / "other").rename(path)
        await eventually(lambda: site.state.down)
        assert "model.safetensors" in site.state.progress


async def test_weights_reloaded_in_the_engine(site):
    """By a back door of the engine; the loader counts every pass."""
    await site.start_engine()
    async with site.run():
        await site.ready()
        site.engine.evidence["workers"][0]["started"] = 2
        await eventually(lambda: site.state.down)


async def test_adapter_loaded_in_an_engine_without_the_plugin(site):
    await site.start_engine(evidence=None)
    async with site.run():
        await site.ready()
        site.engine.models.append({"id": "a", "owned_by": "vllm", "parent": "toy"})
        await eventually(lambda: site.state.down)
        assert "adapters" in site.state.progress


async def test_other_weights_behind_an_engine_without_the_plugin(site):
    """Nothing shows but the answers: the canary is all there is."""
    await site.start_engine(evidence=None)
    async with site.run(canary_seconds=0.01):
        await site.ready()
        site.engine.text = "HELLO"
        await eventually(lambda: site.state.down)
        assert "canary" in site.state.progress


async def test_engine_exchanged_between_two_looks(site):
    """Quicker than any timer: the held connection ends, and so does the boot."""
    await site.start_engine()
    async with site.run(recheck_seconds=3600):
        await site.ready()
        await site.engine.stop()
        await eventually(lambda: site.state.down or len(site.boots) == 2)
        await site.ready(2)


async def test_socket_taken_over_while_the_engine_lives(site):
    """Requests go to the verified process or nowhere, also before the next look."""
    await site.start_engine()
    async with site.run(recheck_seconds=3600):
        await site.ready()
        upstream = site.state.require_engine()
        found = upstream._peer
        # As the kernel would report another process on the same path.
        upstream._peer = type(found)(found.pid + 1, found.uid, found.started)
        asked = len(site.engine.requests)
        with pytest.raises(UpstreamDownError, match="another process"):
            await upstream.open("POST", "/v1/completions", headers={}, body=b"{}")
        await asyncio.sleep(0)
        assert len(site.engine.requests) == asked
