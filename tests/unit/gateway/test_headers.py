import pytest

from gateway import headers
from gateway.errors import RequestError


@pytest.mark.parametrize("value", [b"r-1", b"!~", b"x" * 128])
def test_usable_request_id_is_kept(value):
    assert headers.request_id([(b"x-request-id", value)]) == value.decode()


@pytest.mark.parametrize(
    "value", [b"", b"a b", b"x" * 129, b"\xff", b"a\nb", b"a\r\nb: c"]
)
def test_unusable_request_id_is_replaced(value):
    made = headers.request_id([(b"x-request-id", value)])
    assert len(made) == 32
    assert made != headers.request_id([])


@pytest.mark.parametrize("value", [b"a" * 8, b"A-_9" * 22, b"YWJjZGVmZw=="])
def test_nonce(value):
    assert headers.nonce([(b"attestation-nonce", value)]) == value.decode()


def test_no_nonce():
    assert headers.nonce([(b"x-nonce", b"a" * 8)]) is None


@pytest.mark.parametrize(
    "values",
    [
        [b""],
        [b"a" * 7],
        [b"a" * 89],
        [b"a" * 88 + b"="],
        [b"abcdefg\n"],
        [b"a+/bcdefgh"],
        [b"a" * 8, b"a" * 8],
    ],
)
def test_unusable_nonce_is_refused(values):
    with pytest.raises(RequestError, match="Attestation-Nonce"):
        headers.nonce([(b"attestation-nonce", value) for value in values])


def test_delivery():
    assert headers.wants_comment([])
    assert not headers.wants_comment([(b"attestation-delivery", b" None ")])
    with pytest.raises(RequestError, match="Attestation-Delivery"):
        headers.wants_comment([(b"attestation-delivery", b"event")])


def test_two_authorizations_are_none():
    field = (b"authorization", b"Bearer a")
    assert headers.authorization([field]) == b"Bearer a"
    assert headers.authorization([field, field]) is None
    assert headers.authorization([]) is None


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [(b"content-type", b"text/plain")],
        [(b"content-type", b"application/json"), (b"content-type", b"text/plain")],
        [(b"content-type", b"application/json"), (b"content-encoding", b"gzip")],
    ],
)
def test_body_of_another_kind_is_refused(fields):
    with pytest.raises(RequestError, match="content-") as caught:
        headers.check_body_headers(fields)
    assert caught.value.status == 415


def test_plain_json_body():
    kind = (b"content-type", b"Application/Json ; charset=utf-8")
    headers.check_body_headers([kind, (b"content-encoding", b"identity")])


def test_trace_context_passes_and_nothing_else():
    fields = [
        (b"traceparent", b"00-1-2-01"),
        (b"tracestate", b"a=b\x00"),
        (b"authorization", b"Bearer secret"),
        (b"baggage", b"x=y"),
    ]
    assert headers.upstream_headers(fields, "r") == {
        "accept-encoding": "identity",
        "content-type": "application/json",
        "x-request-id": "r",
        "traceparent": "00-1-2-01",
    }


def test_listed_fields_of_the_engine_pass():
    upstream = {
        "content-type": "text/plain; a=\xe9",
        "retry-after": "1",
        "location": "http://x",
        "attestation": "forged",
    }
    fields = headers.response_fields(upstream, request_id="r", attestation_id="att_1")
    assert fields == [
        (b"content-type", b"text/plain; a=\xe9"),
        (b"retry-after", b"1"),
        (b"x-request-id", b"r"),
        (b"attestation-id", b"att_1"),
    ]
