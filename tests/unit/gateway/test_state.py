import pytest

from gateway.auth import ApiKeys
from gateway.engine.address import Address
from gateway.errors import OverloadedError, UpstreamDownError
from gateway.settings import LimitSettings, Settings
from gateway.state import AppState


def state(**limits):
    return AppState(LimitSettings(max_body_bytes=1, **limits), ApiKeys())


def test_slots_are_given_back():
    one = state(max_concurrency=2)
    for _ in range(3):
        one.enter("")
        one.enter("")
        with pytest.raises(OverloadedError, match="2 requests are in flight"):
            one.enter("")
        assert one.in_flight == 2
        one.leave("")
        one.leave("")
    assert one.in_flight == 0


def test_slots_of_a_key_are_its_own():
    one = state(max_concurrency=4, max_concurrency_per_key=1)
    one.enter("a")
    with pytest.raises(OverloadedError, match="1 requests of this API key"):
        one.enter("a")
    one.enter("b")
    one.leave("a")
    one.enter("a")
    assert one.in_flight == 2


def test_limit_per_key_is_not_for_callers_without_one():
    one = state(max_concurrency=3, max_concurrency_per_key=1)
    one.enter("")
    one.enter("")
    assert one.in_flight == 2


async def test_life(tmp_path, world):
    one = AppState.starting(
        Settings(model=tmp_path, authority=(tmp_path,), signer="file:k")
    )
    assert not one.ready
    with pytest.raises(OverloadedError, match="starting"):
        one.require_engine()
    await one.aclose()
    attester = type(
        "Attester", (), {"boot": type("Boot", (), {"manifest": world.manifest})}
    )
    one.become_ready(attester, Address.of_socket(tmp_path / "e.sock"))
    assert one.ready
    assert one.serving.manifest_digest == world.manifest.digest
    assert one.require_engine() is one.serving.upstream
    one.refuse_all("the engine has ended")
    assert not one.ready
    with pytest.raises(UpstreamDownError, match="no answer can be attested"):
        one.require_engine()
    one.become_ready(attester, Address.of_socket(tmp_path / "e.sock"))
    assert one.ready
    await one.aclose()
