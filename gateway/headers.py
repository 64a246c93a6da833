"""Which header fields pass, in either direction: only those that are listed here."""

import re
import secrets
from collections.abc import Iterable, Mapping

from attest.delivery import (
    DELIVERY_HEADER,
    ID_HEADER,
    NONCE_HEADER,
    REQUEST_ID_HEADER,
)
from gateway.errors import RequestError
from gateway.form import boundary_of

__all__ = [
    "Fields",
    "authorization",
    "check_body_headers",
    "form_boundary",
    "nonce",
    "request_id",
    "response_fields",
    "upstream_headers",
    "wants_comment",
]

# Names in lower case, as ASGI gives them.
Fields = Iterable[tuple[bytes, bytes]]

# Printable and short: the engine makes its response id of it, and it goes into logs.
_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_NONCE = re.compile(rb"[A-Za-z0-9_-]{8,88}={0,2}")  # RFC 9711 §4.1: 8 to 88 characters
# W3C Trace Context; nothing else of the client's reaches the engine.
_TRACE = re.compile(rb"[ -~]{1,512}")
_TRACE_NAMES = (b"traceparent", b"tracestate")
_FROM_UPSTREAM = (("content-type", b"content-type"), ("retry-after", b"retry-after"))


_REQUEST_ID_NAME = REQUEST_ID_HEADER.encode("ascii")
_ID_NAME = ID_HEADER.encode("ascii")
_NONCE_NAME = NONCE_HEADER.encode("ascii")
_DELIVERY_NAME = DELIVERY_HEADER.encode("ascii")


def _all(fields: Fields, wanted: bytes) -> list[bytes]:
    return [value for name, value in fields if name == wanted]


def request_id(fields: Fields) -> str:
    """The client's `X-Request-Id` if it is usable, else a new one."""
    for value in _all(fields, _REQUEST_ID_NAME):
        if _REQUEST_ID.fullmatch(value):
            return value.decode("ascii")
    return secrets.token_hex(16)


def authorization(fields: Fields) -> bytes | None:
    """The `Authorization` header; None where it is missing or there are two.

    Without one, the key of `x-api-key`, by which Anthropic's clients send it, stands as
    a bearer's.
    """
    values = _all(fields, b"authorization")
    if not values:
        values = [b"Bearer " + key for key in _all(fields, b"x-api-key")]
    return values[0] if len(values) == 1 else None


def nonce(fields: Fields) -> str | None:
    """The client's nonce, None where it sent none.

    Raises:
        RequestError: it is not 8 to 88 characters of base64url, or there are two.
    """
    values = _all(fields, _NONCE_NAME)
    if not values:
        return None
    if len(values) > 1 or len(values[0]) > 88 or not _NONCE.fullmatch(values[0]):
        raise RequestError(
            "Attestation-Nonce: expected one value of 8 to 88 base64url characters"
        )
    return values[0].decode("ascii")


def wants_comment(fields: Fields) -> bool:
    """Whether a stream may carry the attestation as a comment.

    A reader that takes every line for JSON breaks on comments; it says
    `Attestation-Delivery: none`.

    Raises:
        RequestError: a value that means nothing here.
    """
    for value in _all(fields, _DELIVERY_NAME):
        if value.strip().lower() != b"none":
            raise RequestError("Attestation-Delivery: the only value is none")
        return False
    return True


def check_body_headers(fields: Fields) -> None:
    """Return when the body is said to be plain JSON.

    A web page may send any other type across origins without asking, so a gateway on a
    user's own machine would take requests from every site.

    Raises:
        RequestError: another media type (415), or a content coding (415).
    """
    kinds = [
        value.split(b";")[0].strip().lower() for value in _all(fields, b"content-type")
    ]
    if kinds != [b"application/json"]:
        raise RequestError("content-type: expected application/json", status=415)
    _check_coding(fields)


def form_boundary(fields: Fields) -> bytes:
    """The boundary of a form's body.

    A web page may send a form across origins without asking, so what a browser sends is
    not taken.

    Raises:
        RequestError: no form with one boundary, a content coding (415), or a page's.
    """
    kinds = _all(fields, b"content-type")
    boundary = boundary_of(kinds[0] if len(kinds) == 1 else b"")
    if _all(fields, b"origin"):
        raise RequestError("origin: forms of web pages are not taken", status=403)
    _check_coding(fields)
    return boundary


def _check_coding(fields: Fields) -> None:
    for value in _all(fields, b"content-encoding"):
        if value.strip().lower() != b"identity":
            raise RequestError(
                "content-encoding: compressed bodies are not read", status=415
            )


def upstream_headers(
    fields: Fields, request_id: str, *, content_type: str = "application/json"
) -> dict[str, str]:
    """What the engine is sent. The client's key and cookies are not in it."""
    headers = {
        "accept-encoding": "identity",
        "content-type": content_type,
        REQUEST_ID_HEADER: request_id,
    }
    for name, value in fields:
        if name in _TRACE_NAMES and _TRACE.fullmatch(value):
            headers[name.decode("ascii")] = value.decode("ascii")
    return headers


def response_fields(
    upstream: Mapping[str, str], *, request_id: str, attestation_id: str | None
) -> list[tuple[bytes, bytes]]:
    """Header fields of the answer, without those that tell its length or delivery."""
    fields = [
        (ours, upstream[name].encode("latin-1"))
        for name, ours in _FROM_UPSTREAM
        if name in upstream
    ]
    fields.append((_REQUEST_ID_NAME, request_id.encode("ascii")))
    if attestation_id is not None:
        fields.append((_ID_NAME, attestation_id.encode("ascii")))
    return fields
