import pytest

from gateway.auth import ApiKeys
from gateway.engine.address import Address
from gateway.errors import OverloadedError, UpstreamDownError
from gateway.settings import LimitSettings, Settings
from gateway.state import AppState


def state(max_concurrency=2):
    limits = LimitSettings(max_body_bytes=1, max_concurrency=max_concurrency)
    return AppState(limits, ApiKeys())


def test_slots_are_given_back():
    one = state()
    with one.slot(), one.slot(), pytest.raises(OverloadedError), one.slot():
        pass
    assert one.in_flight == 0


def test_slot_is_given_back_after_an_error():
    one = state()
    with pytest.raises(KeyError), one.slot():
        raise KeyError
    assert one.in_flight == 0


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
