import json

import pytest
from fakes.world import make_world
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey

from attest.errors import AlgorithmError, AttestError, FormatError, SignatureError
from attest.keys import Algorithm, PrivateKey, b64url_decode, b64url_encode
from attest.tokens import MAX_TOKEN, mint, parse, signing_digest, verify

TYP = "test+jwt"
KEYS = {alg: PrivateKey.generate(alg) for alg in Algorithm}
KEY = KEYS[Algorithm.EDDSA]
LIBRARY = {Algorithm.EDDSA: OKPKey, Algorithm.ES256: ECKey}
# joserfc warns of the name EdDSA, which RFC 9864 calls Ed25519. Most readers know the
# old one alone.
RFC_9864 = pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
ALGORITHMS = pytest.mark.parametrize("alg", list(Algorithm))
CLAIMS = st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    max_size=5,
)


def token(header=None, payload=b"{}", *, key=KEY, signature=None):
    """A token of any parts; `header` changes the right one, or replaces its bytes."""
    if not isinstance(header, bytes):
        right = {"alg": str(key.public.alg), "kid": key.public.thumbprint, "typ": TYP}
        header = json.dumps({**right, **(header or {})}).encode()
    signing_input = f"{b64url_encode(header)}.{b64url_encode(payload)}"
    signature = key.sign(signing_input.encode()) if signature is None else signature
    return f"{signing_input}.{b64url_encode(signature)}"


@ALGORITHMS
@given(claims=CLAIMS)
def test_round_trip(alg, claims):
    key = KEYS[alg]
    compact = mint(TYP, claims, key)
    parsed = parse(compact, typ=TYP)
    assert parsed.claims == claims
    assert (parsed.alg, parsed.kid) == (alg, key.public.thumbprint)
    assert parsed.digest == signing_digest(compact)
    verify(parsed, key.public)


@RFC_9864
@ALGORITHMS
def test_joserfc_verifies_ours(alg):
    key = KEYS[alg]
    compact = mint(TYP, {"sub": "é"}, key)
    library = LIBRARY[alg].import_key(key.public.jwk)
    found = jws.deserialize_compact(compact, library, algorithms=[str(alg)])
    assert json.loads(found.payload) == {"sub": "é"}
    assert found.headers() == {
        "alg": str(alg),
        "kid": key.public.thumbprint,
        "typ": TYP,
    }


@RFC_9864
@ALGORITHMS
def test_we_verify_those_of_joserfc(alg):
    key = KEYS[alg]
    library = LIBRARY[alg].import_key(key.pem)
    header = {"alg": str(alg), "kid": key.public.thumbprint, "typ": TYP}
    compact = jws.serialize_compact(header, b"{}", library, algorithms=[str(alg)])
    verify(parse(compact, typ=TYP), key.public)


@ALGORITHMS
@given(data=st.data())
def test_one_changed_bit_is_found(alg, data):
    """In any of the three parts: never accepted, and never another error."""
    key = KEYS[alg]
    raw = bytearray(mint(TYP, {"a": 1}, key).encode())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(AttestError):
        verify(parse(raw.decode("latin-1"), typ=TYP), key.public)


@given(st.text())
def test_arbitrary_text_is_refused(text):
    with pytest.raises(FormatError):
        parse(text, typ=TYP)


@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=60))
def test_arbitrary_parts_are_refused(header, payload, signature):
    text = ".".join(map(b64url_encode, (header, payload, signature)))
    with pytest.raises(FormatError):
        parse(text, typ=TYP)


RIGHT = {"alg": "EdDSA", "kid": KEY.public.thumbprint, "typ": TYP}
MALFORMED = {
    "duplicate header key": token(
        b'{"alg":"none",' + json.dumps(RIGHT).encode()[1:], signature=b"x" * 64
    ),
    "duplicate claim": token(payload=b'{"a":1,"a":2}'),
    "NaN": token(payload=b'{"a":NaN}'),
    "infinity": token(payload=b'{"a":1e999}'),
    "utf-16": token(payload='{"a":1}'.encode("utf-16")),
    "byte order mark": token(payload=b"\xef\xbb\xbf{}"),
    "claims are a list": token(payload=b"[]"),
    "claims are empty": token(payload=b" "),
    "header is a list": token(b"[]"),
    "header is text": token(b'"x"'),
    "deep claims": token(payload=b'{"a":' * 17 + b"1" + b"}" * 17),
    "large header": token({"kid": "x" * 2000}),
    "another typ": token({"typ": "JWT"}),
    "typ in other case": token({"typ": TYP.upper()}),
    "no typ": token(json.dumps({"alg": "EdDSA", "kid": "x"}).encode()),
    "no kid": token(json.dumps({"alg": "EdDSA", "typ": TYP}).encode()),
    "further member": token({"cty": "JWT"}),
    "alg is no text": token({"alg": 1}),
    "kid is no text": token({"kid": None}),
    "kid is no thumbprint": token({"kid": "key 1\n10 policy ok"}),
    "kid is a little longer": token({"kid": "x" * 44}),
    "padding": token() + "=",
    "white space": " " + token(),
    "line end": token() + "\n",
    "four parts": token() + ".x",
    "two parts": token().rpartition(".")[0],
    "empty signature": token(signature=b""),
    "json serialization": json.dumps({"payload": "e30", "signature": ""}),
    "other alphabet": token().replace(".", "+", 1),
    "stray bits": token()[:-1] + "x" if token()[-1] != "x" else token()[:-1] + "y",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name):
    """PyJWT alone takes many of these."""
    with pytest.raises(FormatError):
        parse(MALFORMED[name], typ=TYP)


def test_too_large():
    compact = token(payload=json.dumps({"a": "x" * MAX_TOKEN}).encode())
    with pytest.raises(FormatError, match="more than"):
        parse(compact, typ=TYP)


@pytest.mark.parametrize("alg", ["none", "HS256", "RS256", "ES384", "eddsa", ""])
def test_algorithms_off_the_list(alg):
    with pytest.raises(AlgorithmError) as caught:
        parse(token({"alg": alg}), typ=TYP)
    assert "EdDSA" in str(caught.value)


def test_the_algorithm_is_the_key_s():
    other = KEYS[Algorithm.ES256]
    with pytest.raises(AlgorithmError):
        verify(parse(token(), typ=TYP), other.public)


def test_the_kid_must_be_the_key_s():
    other = PrivateKey.generate().public.thumbprint
    with pytest.raises(SignatureError, match="kid"):
        verify(parse(token({"kid": other}), typ=TYP), KEY.public)


@ALGORITHMS
def test_another_key(alg):
    key, other = KEYS[alg], PrivateKey.generate(alg)
    forged = token({"kid": key.public.thumbprint}, key=other)
    with pytest.raises(SignatureError) as caught:
        verify(parse(forged, typ=TYP), key.public)
    assert caught.value.hint


@ALGORITHMS
def test_a_signature_of_another_length(alg):
    key = KEYS[alg]
    for signature in (b"x", b"x" * 63, b"x" * 65, b"\x00" * 64):
        compact = token(key=key, signature=signature)
        with pytest.raises(SignatureError):
            verify(parse(compact, typ=TYP), key.public)


def test_the_identity_is_over_what_is_signed():
    """A second signature over the same claims is the same statement."""
    key = KEYS[Algorithm.ES256]
    first, second = (mint(TYP, {"a": 1}, key) for _ in range(2))
    assert first != second
    assert signing_digest(first) == signing_digest(second)
    assert parse(first, typ=TYP).signing_input == first.rpartition(".")[0].encode()


def test_claims_that_json_cannot_hold():
    with pytest.raises(ValueError, match="Out of range"):
        mint(TYP, {"a": float("nan")}, KEY)


def test_real_tokens_fit_a_header():
    """3,000 bytes pass a default nginx, see attest.delivery."""
    assert len(make_world().token(nonce="n" * 32)) <= 2800


def test_the_payload_is_readable_by_anybody():
    payload = mint(TYP, {"a": 1}, KEY).split(".")[1]
    assert json.loads(b64url_decode(payload)) == {"a": 1}
