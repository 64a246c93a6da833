import base64
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jwcrypto.jwk import JWK
from sd_jwt.common import SDObj
from sd_jwt.issuer import SDJWTIssuer
from sd_jwt.verifier import SDJWTVerifier

from attest.disclosures import MAX_DISCLOSURES, conceal, join, reveal, split
from attest.errors import FormatError
from attest.keys import Algorithm, PrivateKey, b64url_decode, b64url_encode
from attest.tokens import mint

TEXT = st.text(st.characters(codec="utf-8"), max_size=10)
CLAIMS = st.dictionaries(
    TEXT.filter(lambda name: name not in {"_sd", "_sd_alg", "..."}),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner),
        max_leaves=5,
    ),
    max_size=5,
)


def disclosure(*parts) -> str:
    return b64url_encode(json.dumps(parts).encode())


def committed(*disclosures: str) -> dict:
    """Claims that commit to exactly these disclosures."""
    return {
        "_sd": [
            b64url_encode(hashlib.sha256(item.encode()).digest())
            for item in disclosures
        ]
    }


def in_utf8(value):
    return json.dumps(value, ensure_ascii=False).encode()


@given(CLAIMS, st.sampled_from([{}, {"encode": in_utf8}]))
def test_what_was_concealed_is_revealed(claims, way):
    public, opened = conceal(claims, **way)
    assert public["_sd_alg"] == "sha-256"
    assert public["_sd"] == sorted(public["_sd"])
    assert reveal(public, opened) == claims
    assert reveal(public, opened[::-1]) == claims
    for one, name in zip(opened, claims, strict=True):
        assert reveal(public, [one]) == {name: claims[name]}
    assert reveal(public, []) == {}


@given(CLAIMS)
def test_a_guess_of_the_value_is_no_use(claims):
    """Equal claims get other digests: each has a salt of 128 bits."""
    public, opened = conceal(claims)
    again, _ = conceal(claims)
    assert not set(public["_sd"]) & set(again["_sd"])
    for item in opened:
        salt = json.loads(b64url_decode(item))[0]
        assert len(b64url_decode(salt)) == 16


@given(st.text(alphabet="abc."), st.lists(st.text(alphabet="xyz_-"), max_size=5))
def test_join_and_split(token, opened):
    assert split(join(token, opened)) == (token, opened)


def test_a_bare_token_discloses_nothing():
    assert split("a.b.c") == ("a.b.c", [])
    assert split("a.b.c~") == ("a.b.c", [])


def test_a_key_binding_is_refused():
    with pytest.raises(FormatError, match="end with ~"):
        split("a.b.c~x~a.b.c")


def test_too_many():
    assert len(split("a~" + "x~" * MAX_DISCLOSURES)[1]) == MAX_DISCLOSURES
    with pytest.raises(FormatError, match="more than"):
        split("a~" + "x~" * (MAX_DISCLOSURES + 1))


@given(st.lists(st.text(), max_size=3, unique=True), st.lists(st.text(), max_size=3))
def test_arbitrary_disclosures(digests, opened):
    if opened:
        with pytest.raises(FormatError):
            reveal({"_sd": digests}, opened)
    else:
        assert reveal({"_sd": digests}, opened) == {}


@given(st.text())
def test_arbitrary_text_that_was_committed_to(text):
    """Whoever signs is believed about digests, never about form."""
    if not text.isascii():
        return
    try:
        revealed = reveal(committed(text), [text])
    except FormatError:
        return
    assert len(revealed) == 1


@pytest.mark.parametrize(
    "item",
    [
        "!",
        "é",
        b64url_encode(b"not json"),
        disclosure("salt", "name"),
        disclosure("salt", "name", 1, 2),
        disclosure("", "name", 1),
        disclosure(1, "name", 1),
        disclosure("salt", 1, 1),
        b64url_encode(b'{"salt":1}'),
        b64url_encode(b'["s","n",{"a":1,"a":2}]'),
        b64url_encode(b'["s","n",NaN]'),
        disclosure("salt", "_sd", 1),
        disclosure("salt", "...", 1),
        disclosure("salt", "name", "x" * 9000),
    ],
)
def test_malformed(item):
    with pytest.raises(FormatError):
        reveal(committed(item), [item])


def test_one_given_twice():
    item = disclosure("salt", "name", 1)
    with pytest.raises(FormatError, match="does not belong"):
        reveal(committed(item), [item, item])


def test_one_name_twice():
    items = [disclosure("salt", "name", 1), disclosure("salt", "name", 2)]
    with pytest.raises(FormatError, match="stated twice"):
        reveal(committed(*items), items)


def test_a_name_that_is_in_the_clear():
    item = disclosure("salt", "iss", "somebody")
    with pytest.raises(FormatError, match="stated twice"):
        reveal({**committed(item), "iss": "me"}, [item])


def test_of_another_token():
    public, _ = conceal({"a": 1})
    _, opened = conceal({"a": 1})
    with pytest.raises(FormatError, match="does not belong"):
        reveal(public, opened)


def test_changed():
    public, [item] = conceal({"a": 1})
    salt, name, _ = json.loads(b64url_decode(item))
    with pytest.raises(FormatError, match="does not belong"):
        reveal(public, [disclosure(salt, name, 2)])


def test_claims_that_commit_to_nothing():
    assert reveal({}, []) == {}
    with pytest.raises(FormatError):
        reveal({}, [disclosure("salt", "name", 1)])


@pytest.mark.parametrize("digests", ["abc", {"a": 1}, [1], [["x"]], None, ["x", "x"]])
def test_commitments_that_are_none(digests):
    """§7.1: a digest that occurs twice makes the token invalid."""
    with pytest.raises(FormatError):
        reveal({"_sd": digests}, [])


def test_rfc_9901_example():
    """§4.2.3: the digest of a disclosure, from the text of the standard."""
    item = "WyJfMjZiYzRMVC1hYzZxMktJNmNCVzVlcyIsICJmYW1pbHlfbmFtZSIsICJNw7ZiaXVzIl0"
    claims = {"_sd": ["X9yH0Ajrdm1Oij4tWso9UzzKJvPoDxwmuEcO3XAdRC0"]}
    assert reveal(claims, [item]) == {"family_name": "Möbius"}


KEY = PrivateKey.generate(Algorithm.ES256)


def test_the_reference_library_reads_ours():
    public, opened = conceal({"out.0": "é", "n": {"a": [1, None]}})
    compact = mint("example+sd-jwt", {"iss": "me", **public}, KEY)
    found = SDJWTVerifier(
        join(compact, opened), lambda *_: JWK.from_pem(KEY.public.pem)
    ).get_verified_payload()
    assert found == {"iss": "me", "out.0": "é", "n": {"a": [1, None]}}


def test_we_read_those_of_the_reference_library():
    claims = {"iss": "me", SDObj("a"): "é", SDObj("b"): [1, {"c": None}]}
    issued = SDJWTIssuer(claims, JWK.from_pem(KEY.pem), sign_alg="ES256")
    compact, opened = split(issued.sd_jwt_issuance)
    payload = compact.split(".")[1]
    public = json.loads(base64.urlsafe_b64decode(payload + "=="))
    assert reveal(public, opened) == {"a": "é", "b": [1, {"c": None}]}
