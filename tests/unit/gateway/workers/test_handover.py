import json

import pytest

from attest.errors import ConfigurationError
from gateway.settings import load_settings
from gateway.workers.handover import restore_settings, share_of


def settings(**flags):
    given = {"model": "m", "authority": ["a.pem"], "signer": "file:i.pem", **flags}
    return load_settings(given)


@pytest.mark.parametrize(
    ("workers", "limit", "share"), [(1, 256, 256), (2, 256, 128), (3, 10, 4), (8, 1, 1)]
)
def test_each_worker_takes_its_share_rounded_up(workers, limit, share):
    limits = {"max_concurrency": limit, "max_concurrency_per_key": limit}
    found = share_of(settings(workers=workers, limits=limits))["limits"]
    assert found["max_concurrency"] == found["max_concurrency_per_key"] == share


def test_no_limit_stays_none():
    found = share_of(settings(workers=2))["limits"]
    assert found["max_concurrency_per_key"] is None


def test_settings_arrive_as_they_were(monkeypatch):
    given = settings(
        workers=2,
        limits={"max_concurrency": 8},
        tls={"certificate": "c.pem", "key": "k.pem"},
        log_witnesses=[{"url": "http://w", "vkey": "w+00000000+AA=="}],
        status_lists=["list"],
        metrics_port=9,
    )
    # What the environment says was said to the gateway alone.
    monkeypatch.setenv("ATTEST_PORT", "1")
    monkeypatch.setenv("ATTEST_LIMITS__HEAD_SECONDS", "77")
    found = restore_settings(json.loads(json.dumps(share_of(given))))
    assert found.limits.max_concurrency == 4
    limits = found.limits.model_copy(update={"max_concurrency": 8})
    restored = found.model_copy(update={"limits": limits})
    assert restored.model_dump() == given.model_dump()


def test_other_settings_are_refused_without_their_values():
    dumped = {**share_of(settings()), "port": "a-secret"}
    with pytest.raises(ConfigurationError, match="port: not as") as caught:
        restore_settings(dumped)
    assert "a-secret" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 65])
def test_number_of_workers_is_bounded(workers):
    with pytest.raises(ConfigurationError, match="workers"):
        settings(workers=workers)
