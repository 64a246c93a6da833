import json
from dataclasses import replace

import pytest
from fakes.world import ANSWER, REQUEST, make_world
from hypothesis import given
from hypothesis import strategies as st

from attest.bundle import MEDIA_TYPE, Bundle, Endorsements
from attest.errors import FormatError, InputError, UnsupportedVersionError
from attest.log.proof import LogProof

BODY = st.none() | st.binary()
BUNDLE = make_world().bundle()
VALUE = BUNDLE.to_json()


def loads(value):
    return Bundle.loads(json.dumps(value).encode())


@given(BODY, BODY)
def test_round_trip(request, response):
    bundle = replace(
        BUNDLE,
        request=request,
        response=response,
        manifest=json.dumps(json.loads(BUNDLE.manifest)).encode(),
        log=LogProof(3, "checkpoint", (b"x" * 32,)),
        status_lists=("a.b.c",),
    )
    assert Bundle.loads(bundle.dumps()) == bundle


def test_the_manifest_s_bytes_may_change_and_its_payload_not():
    """The envelope is JSON in JSON; what is signed is base64 in it."""
    found = loads(VALUE)
    assert json.loads(found.manifest) == json.loads(BUNDLE.manifest)


def test_a_digest_is_not_written():
    """Nobody can check it afterwards."""
    bundle = replace(BUNDLE, response=None, response_digest="sha256:" + "0" * 64)
    assert loads(bundle.to_json()) == replace(
        loads(VALUE), response=None, response_digest=None
    )


def test_what_all_answers_of_a_boot_share():
    assert Bundle.of(BUNDLE.token, BUNDLE.endorsements) == replace(
        BUNDLE, request=None, response=None
    )
    world = make_world()
    assert Endorsements.from_json(world.endorsements).boot_record == world.boot


@pytest.mark.parametrize(
    "media_type", ["", None, MEDIA_TYPE + ";v=2", MEDIA_TYPE.replace("v1", "v2"), 1]
)
def test_another_version(media_type):
    with pytest.raises(UnsupportedVersionError) as caught:
        loads({**VALUE, "mediaType": media_type})
    assert "upgrade" in caught.value.hint


MALFORMED = {
    "token": [None, 1, ["x"]],
    "keyCertificates": [None, "x", [], [1], ["x"] * 65],
    "bootRecord": [None, 1],
    "manifest": [None, "x", []],
    "request": [1, "a", "é", "YQ =", "AAAA=", ["YQ=="]],
    "response": [False, "a===", {}],
    "statusLists": [None, "x", [1], ["x"] * 17],
    "log": [None, "x", {}, {"index": -1, "checkpoint": "", "proof": []}],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name in MALFORMED for value in MALFORMED[name]],
)
def test_malformed(name, value):
    changed = {**VALUE, name: value}
    with pytest.raises(FormatError):
        loads(changed)


@pytest.mark.parametrize("name", ["token", "keyCertificates", "bootRecord", "manifest"])
def test_missing(name):
    with pytest.raises(FormatError):
        loads({key: value for key, value in VALUE.items() if key != name})


def test_content_may_be_missing_or_null():
    without = {k: v for k, v in VALUE.items() if k not in {"request", "response"}}
    for value in (without, {**VALUE, "request": None, "response": None}):
        found = loads(value)
        assert (found.request, found.response) == (None, None)
    assert (loads(VALUE).request, loads(VALUE).response) == (REQUEST, ANSWER)


def test_unknown_members_mean_nothing():
    assert loads({**VALUE, "note": "x"}) == loads(VALUE)


@given(st.binary())
def test_arbitrary_bytes(data):
    with pytest.raises(InputError):
        Bundle.loads(data)


@given(
    st.dictionaries(
        st.sampled_from(sorted(VALUE)),
        st.none() | st.text() | st.integers() | st.lists(st.text()) | st.just({}),
    )
)
def test_arbitrary_members(members):
    try:
        loads({**VALUE, **members})
    except InputError:
        return
