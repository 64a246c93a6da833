import json
import zlib
from dataclasses import replace

import pytest
from fakes.log import SignedLog
from fakes.verdicts import sound
from fakes.world import NOW, make_world
from hypothesis import given
from hypothesis import strategies as st

from attest import tokens
from attest.bundle import Bundle
from attest.errors import FormatError, SignatureError
from attest.keys import Algorithm, PrivateKey, b64url_encode
from attest.recall import Reference, StatusList, find_list, read_reference
from attest.verify import Status, verify

URI = "https://authority.test/status/1"
DAY = 24 * 3600


@pytest.fixture(scope="module", params=list(Algorithm))
def key(request):
    return PrivateKey.generate(request.param)


def signed(key, **changes):
    claims = {
        "sub": URI,
        "iat": NOW,
        "status_list": {"bits": 1, "lst": "eNrbuRgAAhcBXQ"},
        **changes,
    }
    return tokens.mint("statuslist+jwt", claims, key)


# The example of draft-ietf-oauth-status-list §4.1 and §4.2.
EXAMPLE = [1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1]


def test_example_of_the_draft(key):
    found = StatusList.read(signed(key), [key.public])
    assert [found.status(index) for index in range(16)] == EXAMPLE
    assert (found.size, found.uri, found.issued_at) == (16, URI, NOW)


@pytest.mark.parametrize(
    ("bits", "values"), [(2, [1, 2, 3, 0]), (4, [9, 15]), (8, [255])]
)
def test_larger_entries(key, bits, values):
    packed = sum(value << (bits * at) for at, value in enumerate(values))
    lst = b64url_encode(zlib.compress(packed.to_bytes(1, "big")))
    compact = signed(key, status_list={"bits": bits, "lst": lst})
    found = StatusList.read(compact, [key.public])
    assert [found.status(index) for index in range(found.size)] == values


@given(st.dictionaries(st.integers(0, 4095), st.integers(0, 2**40), max_size=20))
def test_what_is_revoked_is_read(times):
    key = PrivateKey.generate()
    items = StatusList.new(URI, 4096)
    for index, since in times.items():
        items = items.revoked(index, since)
    found = StatusList.read(items.sign(key, now=NOW), [key.public])
    assert found.revoked_at == times
    assert {i for i in range(4096) if found.status(i)} == times.keys()


def test_earlier_time_of_two_counts():
    items = StatusList.new(URI, 8).revoked(3, 50).revoked(3, 70).revoked(3, 20)
    assert items.revoked_at == {3: 20}


def test_list_of_a_million_entries_is_small():
    compact = (
        StatusList.new(URI, 2**20).revoked(99, 1).sign(PrivateKey.generate(), now=NOW)
    )
    assert len(compact) < 1000


@pytest.mark.parametrize("index", [-1, 8])
def test_entry_that_is_not_there(index):
    with pytest.raises(FormatError, match="no entry"):
        StatusList.new(URI, 8).revoked(index, 1)


@pytest.mark.parametrize(("uri", "size"), [("", 8), (URI, 0), (URI, 2**20 + 1)])
def test_list_that_cannot_be(uri, size):
    with pytest.raises(FormatError):
        StatusList.new(uri, size)


def test_list_by_somebody_else(key):
    other = PrivateKey.generate()
    with pytest.raises(SignatureError, match="may not issue"):
        StatusList.read(signed(key), [other.public])


BOMB = b64url_encode(zlib.compress(bytes(2**24)))


@pytest.mark.parametrize(
    "changes",
    [
        {"sub": ""},
        {"sub": 7},
        {"iat": "x"},
        {"iat": -1},
        {"status_list": None},
        {"status_list": {"bits": 1}},
        {"status_list": {"bits": 3, "lst": "eNrbuRgAAhcBXQ"}},
        {"status_list": {"bits": 1, "lst": "eNrbuRgAAhcBX"}},
        {"status_list": {"bits": 1, "lst": "eNrbuRgAAhcB"}},
        {"status_list": {"bits": 1, "lst": ""}},
        {"status_list": {"bits": 1, "lst": BOMB}},
        {"status_list": {"bits": 1, "lst": b64url_encode(zlib.compress(b""))}},
        {"revoked_at": []},
        {"revoked_at": {"x": 1}},
        {"revoked_at": {"1": "x"}},
        {"revoked_at": {"1": True}},
        {"revoked_at": {"12345678": 1}},
    ],
)
def test_broken_list(key, changes):
    with pytest.raises(FormatError):
        StatusList.read(signed(key, **changes), [key.public])


@pytest.mark.parametrize(
    "status",
    [
        7,
        {},
        {"status_list": {}},
        {"status_list": {"idx": -1, "uri": URI}},
        {"status_list": {"idx": True, "uri": URI}},
        {"status_list": {"idx": 2**20, "uri": URI}},
        {"status_list": {"idx": 1, "uri": ""}},
        {"other_mechanism": {"idx": 1, "uri": URI}},
    ],
)
def test_broken_reference(status):
    with pytest.raises(FormatError):
        read_reference(status)


def test_reference_is_read():
    reference = Reference(URI, 5)
    assert read_reference(reference.to_json()) == reference
    assert read_reference(None) is None


def test_latest_list_of_the_uri_counts(key):
    items = StatusList.new(URI, 8)
    old = items.sign(key, now=NOW - 5)
    new = items.revoked(1, 3).sign(key, now=NOW)
    other = StatusList.new(URI + "x", 8).sign(key, now=NOW + 9)
    stranger = items.sign(PrivateKey.generate(), now=NOW + 9)
    found = find_list(Reference(URI, 1), [old, new, other, stranger], [key.public])
    assert (found.issued_at, found.status(1)) == (NOW, 1)
    assert find_list(Reference("none", 1), [old, new], [key.public]) is None


REFERENCE = Reference(URI, 7)


@pytest.fixture(scope="module")
def log():
    return SignedLog()


@pytest.fixture(scope="module")
def world(log):
    status = REFERENCE.to_json()
    return make_world(
        predicate={"status": status, "trustAnchors": log.anchors},
        certificate={"status": {"status_list": {"idx": 9, "uri": URI}}},
    )


def listed(world, index=None, since=None, *, key=None, now=NOW):
    items = StatusList.new(URI, 16)
    if index is not None:
        items = items.revoked(index, since)
    return items.sign(key or world.authority, now=now)


def judge(world, bundle, *lists, **policy):
    bundle = replace(bundle, status_lists=lists)
    return sound(verify(bundle, replace(world.policy, **policy), at=NOW + 5))


def test_nothing_revoked(world):
    verdict = judge(world, world.bundle(), listed(world))
    verdict.raise_unless_proven()
    assert verdict.step(9).status is Status.OK
    assert verdict.step(9).detail.count("not revoked as of") == 2
    assert verdict.step(9).detail.count("its list is 5 s old") == 2


@pytest.mark.parametrize(("index", "name"), [(7, "manifest"), (9, "key")])
@pytest.mark.parametrize("since", [0, NOW])
def test_revoked_before_signing_is_false(world, index, name, since):
    verdict = judge(world, world.bundle(), listed(world, index, since))
    assert (verdict.false, verdict.problem.number) == (True, 9)
    assert verdict.problem.detail.startswith(f"{name}: revoked")
    assert "before the token was signed" in verdict.problem.detail


def test_manifest_revoked_after_signing_is_proven_and_noted(world):
    verdict = judge(world, world.bundle(), listed(world, 7, NOW + 1))
    verdict.raise_unless_proven()
    assert "after the token was signed" in verdict.step(9).detail


def test_key_revoked_after_witnesses_saw_the_token(world, log):
    bundle = log.prove(world.bundle(), at=NOW + 1)
    verdict = judge(world, bundle, listed(world, 9, NOW + 2))
    verdict.raise_unless_proven()
    assert "key revoked" in verdict.step(9).detail


@pytest.mark.parametrize("witnesses", [0, 1, 3])
def test_whoever_stole_a_key_can_date_back(world, log, witnesses):
    """Without enough witnesses from before the theft, nobody can tell."""
    bundle = log.prove(world.bundle(), at=NOW + 3, by=log.witnesses[:witnesses])
    verdict = judge(world, bundle, listed(world, 9, NOW + 2))
    assert (verdict.proven, verdict.false) == (False, False)
    assert "no witness saw it before" in verdict.problem.detail


def test_revoked_without_a_time_was_never_good(world):
    lst = b64url_encode(zlib.compress((1 << 7).to_bytes(2, "little")))
    compact = signed(world.authority, status_list={"bits": 1, "lst": lst})
    assert judge(world, world.bundle(), compact).false


def test_list_without_the_entry_breaks_the_rules(world):
    short = StatusList.new(URI, 1).sign(world.authority, now=NOW)
    short = StatusList.read(short, [world.authority.public])
    compact = replace(short, statuses=b"\0").sign(world.authority, now=NOW)
    assert judge(world, world.bundle(), compact).false


def test_list_by_a_delegate_says_nothing_about_the_manifest(world):
    verdict = judge(world, world.bundle(), listed(world, 7, 0, key=world.issuer))
    verdict.raise_unless_proven()
    assert "manifest: no status list" in verdict.step(9).detail


def test_issuer_revokes_a_key_that_it_certified(world):
    assert judge(world, world.bundle(), listed(world, 9, 0, key=world.issuer)).false


def test_session_key_cannot_clear_itself(world):
    verdict = judge(world, world.bundle(), listed(world, key=world.session))
    assert verdict.step(9).status is Status.NOT_CHECKED


def test_no_list_is_not_checked_unless_demanded(world):
    verdict = judge(world, world.bundle())
    verdict.raise_unless_proven()
    assert verdict.step(9).status is Status.NOT_CHECKED
    demanded = judge(world, world.bundle(), max_status_age_seconds=60)
    assert (demanded.proven, demanded.false) == (False, False)


def test_old_list_is_not_enough_where_age_is_limited(world):
    old = listed(world, now=NOW - DAY)
    assert judge(world, world.bundle(), old).proven
    limited = judge(world, world.bundle(), old, max_status_age_seconds=DAY)
    assert limited.problem.number == 9
    assert "86405 s old" in limited.problem.detail


def test_nothing_named_is_not_checked():
    plain = make_world()
    verdict = judge(plain, plain.bundle(), max_status_age_seconds=1)
    verdict.raise_unless_proven()
    assert verdict.step(9).status is Status.NOT_CHECKED


def test_bundle_carries_lists(world):
    bundle = replace(world.bundle(), status_lists=(listed(world),))
    assert Bundle.loads(bundle.dumps()).status_lists == bundle.status_lists


@pytest.mark.parametrize("value", ["x", [7], ["x"] * 17])
def test_bundle_with_broken_lists(world, value):
    whole = world.bundle().to_json() | {"statusLists": value}
    with pytest.raises(FormatError, match="statusLists"):
        Bundle.loads(json.dumps(whole).encode())
