import httpx2
import pytest

from gateway.app import build_app
from gateway.auth import ApiKeys
from gateway.settings import LimitSettings
from gateway.state import AppState


@pytest.fixture
async def probe():
    state = AppState(LimitSettings(), ApiKeys())
    transport = httpx2.ASGITransport(build_app(state))

    async def get(path):
        async with httpx2.AsyncClient(transport=transport, base_url="http://t") as one:
            return (await one.get(path)).status_code

    return state, get


async def test_sidecar_engine_may_start_once_the_files_are_checked(probe):
    state, get = probe
    assert [await get(p) for p in ("/healthz", "/startupz", "/readyz")] == [
        200,
        503,
        503,
    ]
    state.may_load = True
    assert [await get(p) for p in ("/startupz", "/readyz")] == [200, 503]
