import json

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OKPKey

from attest.errors import FormatError, SignatureError
from attest.keys import (
    Algorithm,
    PrivateKey,
    PublicKey,
    b64url_decode,
    b64url_encode,
    der_to_jose,
    jose_to_der,
)

ALGORITHMS = pytest.mark.parametrize("alg", list(Algorithm))
KEYS = {alg: PrivateKey.generate(alg) for alg in Algorithm}
# RFC 7638 §3.1 has RSA; RFC 8037 appendix A.3 has this key and thumbprint.
RFC8037 = {
    "crv": "Ed25519",
    "kty": "OKP",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
}


def pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def public_pem(key):
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@given(st.binary())
def test_base64url_round_trip(data):
    text = b64url_encode(data)
    assert b64url_decode(text) == b64url_decode(text.encode()) == data
    assert "=" not in text


@given(st.one_of(st.text(), st.binary()))
def test_base64url_has_one_spelling(text):
    try:
        data = b64url_decode(text)
    except FormatError:
        return
    assert b64url_encode(data) == (text if isinstance(text, str) else text.decode())


@pytest.mark.parametrize(
    "text", ["QQ==", "QR", "A", "AAAAA", "a+b/", "Q Q", "QQ\n", "é", b"\xff\xff", "="]
)
def test_other_spellings_are_refused(text):
    with pytest.raises(FormatError):
        b64url_decode(text)


def test_thumbprint_of_rfc_8037():
    key = PublicKey.from_jwk(RFC8037)
    assert key.thumbprint == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    assert key.alg is Algorithm.EDDSA


@ALGORITHMS
def test_every_form_gives_the_same_key(alg):
    key = KEYS[alg]
    forms = [
        PublicKey.from_jwk(key.public.jwk),
        PublicKey.from_bytes(key.public.pem),
        PublicKey.from_bytes(json.dumps(key.public.jwk).encode()),
        PublicKey.from_bytes(b" \n" + json.dumps(key.public.jwk).encode()),
        PrivateKey.from_pem(key.pem).public,
    ]
    assert {form.thumbprint for form in forms} == {key.public.thumbprint}
    assert all(form.alg is alg for form in forms)
    assert all(form == key.public for form in forms)


@ALGORITHMS
def test_thumbprints_are_those_of_joserfc(alg):
    library = {Algorithm.EDDSA: OKPKey, Algorithm.ES256: ECKey}[alg]
    public = KEYS[alg].public
    assert library.import_key(public.jwk).thumbprint() == public.thumbprint


@ALGORITHMS
@given(data=st.binary())
def test_signatures(alg, data):
    key = KEYS[alg]
    signature = key.sign(data)
    assert len(signature) == 64
    key.public.verify(signature, data)
    for bad, text in ((signature, data + b"x"), (signature[:-1], data), (b"", data)):
        with pytest.raises(SignatureError):
            key.public.verify(bad, text)


@ALGORITHMS
@given(signature=st.binary(max_size=80), data=st.binary(max_size=20))
def test_made_up_signatures(alg, signature, data):
    with pytest.raises(SignatureError):
        KEYS[alg].public.verify(signature, data)


@ALGORITHMS
def test_another_key(alg):
    with pytest.raises(SignatureError) as caught:
        PrivateKey.generate(alg).public.verify(KEYS[alg].sign(b"x"), b"x")
    assert caught.value.hint


def test_es256_is_malleable_and_so_no_identity():
    """RFC 8725 §3.2 and design: n-S verifies as S does."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    key = KEYS[Algorithm.ES256]
    signature = key.sign(b"x")
    other = order - int.from_bytes(signature[32:])
    key.public.verify(signature[:32] + other.to_bytes(32), b"x")


@given(st.binary(min_size=64, max_size=64))
def test_der_round_trip(signature):
    assert der_to_jose(jose_to_der(signature)) == signature


@given(st.binary())
def test_der_is_read_strictly(data):
    try:
        jose = der_to_jose(data)
    except SignatureError:
        return
    assert jose_to_der(jose) == data


@pytest.mark.parametrize("length", [0, 63, 65])
def test_jose_signatures_have_64_bytes(length):
    with pytest.raises(SignatureError):
        jose_to_der(b"x" * length)


def test_numbers_too_large_for_p256():
    key = ec.generate_private_key(ec.SECP384R1())
    with pytest.raises(SignatureError):
        der_to_jose(key.sign(b"x", ec.ECDSA(hashes.SHA256())))


OTHER_KEYS = {
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ed448": ed448.Ed448PrivateKey.generate,
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
}


@pytest.mark.parametrize("name", OTHER_KEYS)
def test_other_kinds_of_keys_are_refused(name):
    key = OTHER_KEYS[name]()
    with pytest.raises(FormatError, match="Ed25519 or P-256"):
        PrivateKey.from_pem(pem(key))
    with pytest.raises(FormatError, match="Ed25519 or P-256"):
        PublicKey.from_bytes(public_pem(key))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_no_key(data):
    with pytest.raises(FormatError):
        PublicKey.from_bytes(data)
    with pytest.raises(FormatError):
        PrivateKey.from_pem(data)


@ALGORITHMS
def test_a_private_key_is_not_taken_for_a_public_one(alg):
    key = KEYS[alg]
    with pytest.raises(FormatError):
        PublicKey.from_bytes(key.pem)
    with pytest.raises(FormatError):
        PublicKey.from_jwk({**key.public.jwk, "d": "AAAA"})


def test_large_files_are_not_read():
    with pytest.raises(FormatError, match="more than"):
        PublicKey.from_bytes(b"x" * 20_000)
    with pytest.raises(FormatError, match="more than"):
        PrivateKey.from_pem(b"x" * 20_000)


def test_encrypted_files_need_their_password():
    key = ec.generate_private_key(ec.SECP256R1())
    data = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"right"),
    )
    assert PrivateKey.from_pem(data, password=b"right").public.alg is Algorithm.ES256
    for password in (None, b"wrong"):
        with pytest.raises(FormatError):
            PrivateKey.from_pem(data, password=password)


EC = KEYS[Algorithm.ES256].public.jwk


@pytest.mark.parametrize(
    "jwk",
    [
        None,
        [],
        "x",
        {},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
        {"kty": "oct", "k": "AAAA"},
        {**RFC8037, "crv": "X25519"},
        {**RFC8037, "x": b64url_encode(b"x" * 31)},
        {**RFC8037, "x": RFC8037["x"][:-1]},
        {**RFC8037, "x": 7},
        {**RFC8037, "x": "!"},
        {"kty": "OKP", "crv": "Ed25519"},
        {**EC, "crv": "P-384"},
        {**EC, "x": "AA"},
        {**EC, "y": EC["x"]},
        {**EC, "x": b64url_encode(b"\xff" * 32)},
        {**EC, "y": None},
    ],
)
def test_other_jwks_are_refused(jwk):
    with pytest.raises(FormatError):
        PublicKey.from_jwk(jwk)


@given(
    st.dictionaries(
        st.sampled_from(["kty", "crv", "x", "y", "d", "alg"]),
        st.sampled_from(["OKP", "EC", "Ed25519", "P-256", RFC8037["x"], EC["y"], 1]),
    )
)
def test_arbitrary_jwks(jwk):
    try:
        key = PublicKey.from_jwk(jwk)
    except FormatError:
        return
    assert key.jwk.items() <= jwk.items()


@ALGORITHMS
def test_a_secret_is_not_shown(alg):
    key = KEYS[alg]
    assert repr(key) == f"PrivateKey({key.public.thumbprint})"
    secret = b"".join(key.pem.splitlines()[1:-1]).decode()
    assert secret not in f"{key} {key!r} {[key]}"
