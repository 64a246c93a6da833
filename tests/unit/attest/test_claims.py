import copy

import pytest
from fakes.world import ABSENT, REQUEST, STREAM, STREAM_REQUEST, make_world, merged
from hypothesis import given
from hypothesis import strategies as st

from attest import disclosures, tokens
from attest.claims import (
    EAT_PROFILE,
    TOKENS,
    Measured,
    check_claims,
    check_salted,
)
from attest.digests import digest
from attest.errors import FormatError, UnsupportedVersionError
from attest.recall import StatusList

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
ATTESTATION, BOOT, KEY, REFUSAL, LIST = (
    "inference-attestation+jwt",
    "eat+jwt",
    "gateway-key+jwt",
    "startup-refusal+jwt",
    "statuslist+jwt",
)


def right(typ):
    """The claims of a true token of each kind."""
    world = make_world()
    if typ == REFUSAL:
        return {
            "iss": "gateway",
            "iat": world.now,
            "jti": "ref_1",
            "eat_profile": EAT_PROFILE,
            "manifest": None,
            "code": "manifest_mismatch",
            "reason": "changed: model.safetensors",
        }
    token = disclosures.split(world.token(nonce="nonce-nonce"))[0]
    items = StatusList.new("https://authority.test/status", 8).revoked(3, 5)
    compact = {
        ATTESTATION: token,
        BOOT: world.boot,
        KEY: world.certificate,
        LIST: items.sign(world.authority, now=world.now),
    }[typ]
    return dict(tokens.parse(compact, typ=typ).claims)


RIGHT = {typ: right(typ) for typ in TOKENS}


@pytest.mark.parametrize("typ", TOKENS)
def test_true_tokens_pass(typ):
    assert check_claims(RIGHT[typ], typ) == ()


@pytest.mark.parametrize(
    ("typ", "name"),
    [(typ, claim.name) for typ, schema in TOKENS.items() for claim in schema],
)
def test_every_claim_is_checked(typ, name):
    [claim] = [claim for claim in TOKENS[typ] if claim.name == name]
    without = {key: value for key, value in RIGHT[typ].items() if key != name}
    if claim.required:
        with pytest.raises(FormatError, match=f"{name} is missing"):
            check_claims(without, typ)
    else:
        check_claims(without, typ)
    if name != "reason":
        with pytest.raises(FormatError, match=f"{name} has the wrong type"):
            check_claims({**without, name: {"x": [1.5]}}, typ)


@pytest.mark.parametrize("typ", TOKENS)
@given(data=st.data())
def test_arbitrary_values(typ, data):
    claims = copy.deepcopy(RIGHT[typ])
    name = data.draw(st.sampled_from(sorted(claims)))
    claims[name] = data.draw(JSON)
    try:
        check_claims(claims, typ)
    except (FormatError, UnsupportedVersionError):
        return


WRONG = {
    "boolean time": {"iat": True},
    "float time": {"iat": 1.0},
    "negative time": {"iat": -1},
    "time beyond 2^53": {"iat": 2**53},
    "text time": {"iat": "1800000000"},
    "empty issuer": {"iss": ""},
    "long issuer": {"iss": "x" * 1025},
    "upper-case digest": {"boot": digest(b"").upper()},
    "digest of another algorithm": {"boot": "sha512:" + "0" * 128},
    "null digest": {"boot": None},
    "manifest without digest": {"manifest": {"digest": ABSENT}},
    "manifest as text": {"manifest": digest(b"")},
    "unknown measurement": {"weights": {"measured": "believed"}},
    "measurement as a list": {"weights": {"measured": ["engine"]}},
    "unknown outcome": {"res": {"outcome": "fine"}},
    "boolean as text": {"res": {"stream": "true"}},
    "unknown system prompt state": {"system_prompt": "ok"},
    "constitution without digest": {"constitution": {"digest": ABSENT}},
    "finish reasons as text": {"gen_ai.response.finish_reasons": "stop"},
    "too many finish reasons": {"gen_ai.response.finish_reasons": ["stop"] * 257},
    "finish reason as a number": {"gen_ai.response.finish_reasons": [1]},
    "salted digest too short": {"_sd": ["AAAA"]},
    "salted digest with padding": {"_sd": ["A" * 43 + "="]},
    "salted digest as a number": {"_sd": [1]},
    "another digest algorithm": {"_sd_alg": "sha-1"},
    "audience list": {"aud": ["a", "b"]},
    "previous as text": {"prev": ""},
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong(name):
    with pytest.raises(FormatError, match="has the wrong type or form"):
        check_claims(merged(RIGHT[ATTESTATION], WRONG[name]), ATTESTATION)


@pytest.mark.parametrize(
    "jwk",
    [
        None,
        {},
        {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"},
        # More than the key itself, which has one spelling here.
        {**RIGHT[KEY]["cnf"]["jwk"], "kid": "x"},
        {**RIGHT[KEY]["cnf"]["jwk"], "d": "AAAA"},
    ],
)
def test_keys_that_are_none(jwk):
    claims = {**RIGHT[KEY], "cnf": {"jwk": jwk}}
    with pytest.raises(FormatError, match="cnf"):
        check_claims(claims, KEY)


@pytest.mark.parametrize(
    "software", [[], {"a": 1}, {"": "1"}, {str(n): "1" for n in range(257)}]
)
def test_software_that_is_none(software):
    with pytest.raises(FormatError, match="software"):
        check_claims({**RIGHT[BOOT], "software": software}, BOOT)


def test_unknown_claims_are_named_and_ignored():
    claims = {**RIGHT[ATTESTATION], "z": 1, "a": None}
    assert check_claims(claims, ATTESTATION) == ("a", "z")


@pytest.mark.parametrize(
    "change", [{"eat_profile": "tag:another,2030:2"}, {"crit": ["exp"]}]
)
def test_newer_tokens_are_not_judged(change):
    with pytest.raises(UnsupportedVersionError) as caught:
        check_claims({**RIGHT[ATTESTATION], **change}, ATTESTATION)
    assert "upgrade" in caught.value.hint


def test_measurements_have_an_order():
    ranks = [Measured.ASSERTED.rank, Measured.FILES.rank, Measured.ENGINE.rank]
    assert ranks == [0, 1, 2]


@pytest.mark.parametrize("body", [(REQUEST,), (STREAM_REQUEST, STREAM)])
def test_true_disclosures_pass(body):
    _, private = make_world().claims(*body)
    assert {"request.digest", "out.0"} <= private.keys()
    check_salted(private)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("request.digest", "x"),
        ("request.semantic_digest", None),
        ("request.sampling", {"temperature": 0.5}),
        ("request.sampling", []),
        ("out.0", "x"),
        ("out.7", 1),
    ],
)
def test_wrong_disclosures(name, value):
    with pytest.raises(FormatError, match=name):
        check_salted({name: value})


@given(st.dictionaries(st.text(), JSON))
def test_arbitrary_disclosures(claims):
    try:
        check_salted(claims)
    except FormatError:
        return


def test_every_claim_says_what_it_means():
    for schema in TOKENS.values():
        for claim in schema:
            assert claim.meaning
