import base64
import json

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from hypothesis import given
from hypothesis import strategies as st

from attest.envelope import MAX_ENVELOPE, open_envelope, seal
from attest.errors import FormatError, SignatureError
from attest.keys import Algorithm, PrivateKey

TYPE = "application/vnd.in-toto+json"
KEYS = [PrivateKey.generate(alg) for alg in (*Algorithm, *Algorithm)]
PUBLIC = [key.public for key in KEYS]


def opened(data, keys=PUBLIC, threshold=1):
    return open_envelope(data, TYPE, keys, threshold=threshold)


def changed(envelope, **members):
    return json.dumps({**json.loads(envelope), **members}).encode()


@given(st.binary())
def test_round_trip(payload):
    envelope = opened(seal(payload, TYPE, KEYS), threshold=4)
    assert envelope.payload == payload
    assert envelope.signed_by == tuple(sorted(key.thumbprint for key in PUBLIC))


def test_the_signed_bytes_are_those_of_dsse():
    """The example of the specification, and DER signatures as its tools write them."""
    key = KEYS[list(Algorithm).index(Algorithm.ES256)]
    envelope = json.loads(seal(b"hello world", "http://example.com/HelloWorld", [key]))
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    message = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    public = load_pem_public_key(key.public.pem)
    public.verify(signature, message, ec.ECDSA(hashes.SHA256()))


def test_both_alphabets_of_base64_are_read():
    envelope = json.loads(seal(b"\xff\xfe\xfd" * 50, TYPE, KEYS))
    assert "/" in envelope["payload"]
    other = {
        "payload": envelope["payload"].replace("/", "_").replace("+", "-"),
        "signatures": [
            {**item, "sig": item["sig"].replace("/", "_").replace("+", "-")}
            for item in envelope["signatures"]
        ],
    }
    assert opened(changed(json.dumps(envelope), **other), threshold=4)


def test_the_keyid_is_a_hint_only():
    envelope = json.loads(seal(b"x", TYPE, KEYS[:1]))
    envelope["signatures"][0]["keyid"] = "somebody"
    assert opened(json.dumps(envelope).encode(), PUBLIC[:1])
    del envelope["signatures"][0]["keyid"]
    assert opened(json.dumps(envelope).encode(), PUBLIC[:1])


def test_the_threshold_counts_keys():
    envelope = seal(b"x", TYPE, [KEYS[0], KEYS[0], KEYS[1]])
    assert len(opened(envelope, threshold=2).signed_by) == 2
    with pytest.raises(SignatureError, match="2 of the trusted keys signed, 3 must"):
        opened(envelope, threshold=3)


def test_signatures_of_strangers_count_for_nothing():
    envelope = seal(b"x", TYPE, KEYS)
    assert opened(envelope, PUBLIC[:2]).signed_by == tuple(
        sorted(key.thumbprint for key in PUBLIC[:2])
    )
    stranger = PrivateKey.generate().public
    with pytest.raises(SignatureError) as caught:
        opened(envelope, [stranger])
    assert stranger.thumbprint in caught.value.hint


@pytest.mark.parametrize("threshold", [0, -1, 5])
def test_thresholds_that_make_no_sense(threshold):
    with pytest.raises(ValueError, match="threshold"):
        opened(seal(b"x", TYPE, KEYS), threshold=threshold)


def test_no_key_and_the_same_key_twice():
    envelope = seal(b"x", TYPE, KEYS)
    with pytest.raises(ValueError, match="threshold"):
        opened(envelope, [])
    with pytest.raises(ValueError, match="1 distinct"):
        opened(envelope, [PUBLIC[0], PUBLIC[0]], threshold=2)


def test_a_changed_payload():
    envelope = seal(b"true", TYPE, KEYS)
    lie = changed(envelope, payload=base64.b64encode(b"lies").decode())
    with pytest.raises(SignatureError):
        opened(lie)


def test_another_type():
    envelope = seal(b"x", TYPE, KEYS)
    with pytest.raises(SignatureError, match="payloadType"):
        open_envelope(envelope, "text/plain", PUBLIC)
    with pytest.raises(SignatureError):
        # The type is signed, too.
        open_envelope(changed(envelope, payloadType="text/plain"), "text/plain", PUBLIC)


ENVELOPE = seal(b"x", TYPE, KEYS)
SIGNATURE = json.loads(ENVELOPE)["signatures"][0]
MALFORMED = {
    "no signature": {"signatures": []},
    "too many signatures": {"signatures": [SIGNATURE] * 17},
    "signatures as an object": {"signatures": {}},
    "null signatures": {"signatures": None},
    "signature as text": {"signatures": ["x"]},
    "signature without sig": {"signatures": [{"keyid": "x"}]},
    "sig as a number": {"signatures": [{"sig": 1}]},
    "sig not base64": {"signatures": [{"sig": "a"}]},
    "payload not base64": {"payload": "a"},
    "payload with padding that pads nothing": {"payload": "AAAA="},
    "payload with white space": {"payload": "eA=\n="},
    "payload not ascii": {"payload": "é"},
    "payload as a list": {"payload": []},
    "null payload": {"payload": None},
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name):
    with pytest.raises(FormatError, match="envelope"):
        opened(changed(ENVELOPE, **MALFORMED[name]))


def test_duplicate_members():
    lie = ENVELOPE.rstrip()[:-1] + b', "payload": "bGllcw=="}'
    with pytest.raises(FormatError, match="twice"):
        opened(lie)


@pytest.mark.parametrize(
    "signature", [b"", b"x", b"x" * 64, b"\x30\x06" + b"\x02\x01" * 2]
)
def test_signatures_of_no_form(signature):
    text = base64.b64encode(signature).decode()
    with pytest.raises(SignatureError):
        opened(changed(ENVELOPE, signatures=[{"sig": text}]))


def test_too_large():
    with pytest.raises(FormatError, match="bytes"):
        opened(b"x" * (MAX_ENVELOPE + 1))


@given(st.binary())
def test_arbitrary_bytes(data):
    with pytest.raises(FormatError):
        opened(data)


@given(
    st.dictionaries(
        st.sampled_from(["payload", "payloadType", "signatures"]),
        st.one_of(
            st.none(),
            st.just(TYPE),
            st.text(max_size=5),
            st.lists(st.dictionaries(st.just("sig"), st.text(max_size=8)), max_size=3),
        ),
    )
)
def test_arbitrary_objects(value):
    with pytest.raises((FormatError, SignatureError)):
        opened(json.dumps(value).encode())
