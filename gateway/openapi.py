"""The OpenAPI document: the route table and the evidence routes, for tools and tests.

Requests are described as far as the gateway itself judges them. What else a body may
hold is the engine's business; `policy.request_overrides` says what becomes of members
that it does not know.
"""

from typing import Any

from attest._version import __version__
from attest.bundle import MEDIA_TYPE
from attest.delivery import (
    ATTESTATION_HEADER,
    DELIVERY_HEADER,
    ID_HEADER,
    NONCE_HEADER,
    WELL_KNOWN,
)
from attest.dialects import Dialect
from gateway.endpoints import ENDPOINTS, Endpoint, Treatment

__all__ = ["document"]

_TEXT = {"type": "string", "minLength": 1}
_MESSAGE = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {
        "role": {"enum": ["system", "user", "assistant"]},
        "content": {"type": "string"},
    },
    "additionalProperties": False,
}
_MESSAGES = {"type": "array", "items": _MESSAGE, "minItems": 1}
_TEXTS = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]}
_STREAM = {"stream": {"type": "boolean"}}
_LIMIT = {"type": "integer", "minimum": 1, "maximum": 1_000_000}

# What a request must hold, and may, by dialect; `model` everywhere.
_BODIES: dict[Dialect, tuple[dict[str, Any], dict[str, Any]]] = {
    Dialect.CHAT: ({"messages": _MESSAGES}, {**_STREAM, "max_tokens": _LIMIT}),
    Dialect.COMPLETIONS: ({"prompt": _TEXT}, {**_STREAM, "max_tokens": _LIMIT}),
    Dialect.RESPONSES: ({"input": _TEXT}, {**_STREAM, "max_output_tokens": _LIMIT}),
    Dialect.MESSAGES: ({"messages": _MESSAGES, "max_tokens": _LIMIT}, _STREAM),
    Dialect.POOLING: ({"input": _TEXTS}, {}),
    Dialect.RERANK: (
        {"query": _TEXT, "documents": {"type": "array", "items": _TEXT, "minItems": 1}},
        {},
    ),
}
# `/v1/score` compares two texts.
_PAIR = {"text_1": _TEXT, "text_2": _TEXTS}
_FORM = {
    "type": "object",
    "required": ["file", "model"],
    "properties": {"file": {"type": "string", "format": "binary"}, "model": _TEXT},
}

_REFUSALS = {
    400: "the request can't be read, or asks for what the policy refuses",
    401: "no valid API key",
    403: "refused by the policy, or a form of a web page",
    404: "another model than the one that is served",
    408: "the body did not come in time",
    413: "the body is too large",
    415: "neither JSON nor the form that is wanted",
    429: "too many requests in flight",
    500: "the gateway's own fault",
    502: "the engine broke off or broke HTTP",
    503: "starting, or no answer can be attested; Retry-After says when to come back",
    504: "the engine did not answer in time",
}


def document() -> dict[str, Any]:
    """The document (OpenAPI 3.1), as JSON values."""
    paths: dict[str, Any] = {}
    for endpoint in ENDPOINTS:
        paths[endpoint.path] = {endpoint.method.lower(): _operation(endpoint)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "attest-gateway",
            "version": __version__,
            "description": "An OpenAI-compatible endpoint whose answers are signed.",
        },
        "paths": paths | _evidence_paths() | _health_paths() | _log_paths(),
        "security": [{"bearer": []}, {"apiKey": []}, {}],
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
            "schemas": {"Error": _ERROR},
        },
    }


_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type"],
            "properties": {"message": _TEXT, "type": _TEXT},
        }
    },
}


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    attested = endpoint.treatment is Treatment.ATTESTED
    headers = {
        ID_HEADER: "under which GET /v1/attestations/{id} has the evidence",
        ATTESTATION_HEADER: "the token with its disclosures, where it fits a header",
    }
    answer: dict[str, Any] = {
        "description": "what the engine said",
        "content": {"application/json": {}},
    }
    if attested:
        answer["headers"] = {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in headers.items()
        }
    operation: dict[str, Any] = {
        "operationId": endpoint.path.strip("/").replace("/", "_"),
        "summary": "attested" if attested else "passed on, unsigned",
        "parameters": _parameters() if attested else [],
        "responses": {"200": answer} | _errors(endpoint.method),
    }
    if endpoint.method == "POST":
        operation["requestBody"] = {"required": True, "content": _content(endpoint)}
    streams = (endpoint.dialect in _BODIES) and "stream" in _members(endpoint)[1]
    if attested and streams:
        answer["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    return operation


def _parameters() -> list[dict[str, Any]]:
    nonce = {"type": "string", "pattern": "^[A-Za-z0-9_-]{8,88}$"}
    return [
        _header(NONCE_HEADER, "comes back in the token, signed", nonce),
        _header(DELIVERY_HEADER, "no comment in the stream", {"const": "none"}),
    ]


def _header(name: str, text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "description": text,
        "required": False,
        "schema": schema,
    }


def _members(endpoint: Endpoint) -> tuple[dict[str, Any], dict[str, Any]]:
    if endpoint.path == "/v1/score":
        return _PAIR, {}
    if endpoint.dialect is None:
        return {}, {}
    return _BODIES[endpoint.dialect]


def _content(endpoint: Endpoint) -> dict[str, Any]:
    if endpoint.dialect is Dialect.AUDIO:
        return {"multipart/form-data": {"schema": _FORM}}
    required, optional = _members(endpoint)
    schema = {
        "type": "object",
        "required": sorted(required),
        "properties": {"model": _TEXT, **required, **optional},
    }
    return {"application/json": {"schema": schema}}


def _errors(method: str) -> dict[str, Any]:
    body = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    wanted = _REFUSALS if method == "POST" else _only(401, 429, 500, 502, 503, 504)
    return {
        str(status): {"description": text, "content": body}
        for status, text in wanted.items()
    }


def _only(*statuses: int) -> dict[int, str]:
    return {status: _REFUSALS[status] for status in statuses}


def _get(summary: str, kind: str, *others: int, **path: str) -> dict[str, Any]:
    """One route for GET, with its path parameters by name and pattern."""
    body = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    texts = {202: "not finished yet", 404: "nothing is kept under it", **_REFUSALS}
    responses: dict[str, Any] = {"200": {"description": "ok", "content": {kind: {}}}}
    for status in others:
        responses[str(status)] = {"description": texts[status]}
        if status >= 400:
            responses[str(status)]["content"] = body
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "pattern": pattern},
        }
        for name, pattern in path.items()
    ]
    return {
        "get": {"summary": summary, "parameters": parameters, "responses": responses}
    }


def _evidence_paths() -> dict[str, Any]:
    json = "application/json"
    return {
        WELL_KNOWN: _get("what a verifier needs besides a token", json, 503),
        "/.well-known/jwks.json": _get("the session keys as a JWK set", json, 503),
        "/v1/attestations/{id}": _get(
            "the bundle of one answer", MEDIA_TYPE, 202, 404, 503, id="^[A-Za-z0-9_-]+$"
        ),
        "/evidence": _get("the page that checks a bundle in a browser", "text/html"),
        "/openapi.json": _get("this document", json),
    }


def _health_paths() -> dict[str, Any]:
    json = "application/json"
    found = {
        "/healthz": _get("the process is alive", json),
        "/startupz": _get("an engine may load", json, 503),
        "/readyz": _get("answers can be had, or how far it is", json, 503),
    }
    for path in ("/startupz", "/readyz"):
        # Not an error: the same object as at 200.
        found[path]["get"]["responses"]["503"]["content"] = {json: {}}
    return found


def _log_paths() -> dict[str, Any]:
    text, octets = "text/plain", "application/octet-stream"
    place = "^[0-9x]+(/[0-9x]+)*(\\.p/[0-9]+)?$"
    return {
        "/log/checkpoint": _get("the signed head", text, 404),
        "/log/tile/{level}/{path}": _get(
            "hashes (C2SP tlog-tiles)", octets, 404, level="^[0-7]$", path=place
        ),
        "/log/tile/entries/{path}": _get("leaves", octets, 404, path=place),
        "/log/records/{path}": _get("the tokens", text, 401, 404, path=place),
        "/log/endorsements/{digest}": _get(
            "what a boot rests on", "application/json", 401, 404, digest="^[0-9a-f]+$"
        ),
    }
