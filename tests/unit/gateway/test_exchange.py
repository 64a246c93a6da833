import time

import pytest

from attest.keys import b64url_decode
from gateway.exchange import new_id

MILLISECOND = 1_000_000


@pytest.fixture
def at(monkeypatch):
    """Makes the clock stand at so many milliseconds since the epoch."""

    def stand(milliseconds):
        monkeypatch.setattr(time, "time_ns", lambda: milliseconds * MILLISECOND + 7)

    return stand


def bits(name):
    assert name.startswith("att_")
    assert len(name) == 4 + 22
    return int.from_bytes(b64url_decode(name[4:]), "big")


def test_id_begins_with_its_millisecond(at):
    numbers = []
    for now in (1_764_201_600_000, 1_764_201_600_001, 1_764_201_600_900):
        at(now)
        numbers.append(bits(new_id()))
        assert numbers[-1] >> 80 == now
    assert numbers == sorted(numbers)


def test_ids_of_about_the_same_time_begin_alike(at):
    names = []
    for now in range(1_764_201_600_000, 1_764_201_603_000, 100):
        at(now)
        names.append(new_id())
    assert len({name[: 4 + 5] for name in names}) == 1


def test_ids_of_one_millisecond_differ_in_eighty_bits(at):
    at(1_764_201_600_000)
    first, ever, never = bits(new_id()), 0, -1
    for _ in range(200):
        number = bits(new_id())
        ever |= number ^ first
        never &= number ^ first
    assert ever == 2**80 - 1
    assert never == 0


def test_ids_are_distinct():
    assert len({new_id() for _ in range(10_000)}) == 10_000
