"""Anthropic's shape of an error."""

import json
from collections.abc import Mapping

from gateway.errors import HttpError

__all__ = ["error_body"]

# Where the API has a word of its own for a status; SDKs raise by status, people read
# the word.
_KINDS: Mapping[int, str] = {
    413: "request_too_large",
    503: "overloaded_error",
}


def error_body(error: HttpError, request_id: str | None) -> bytes:
    """`{"type": "error", "error": {type, message}, "request_id"}`.

    Written in ASCII, so that no reader of lines finds an end of line in it.
    """
    kind = "api_error" if error.status >= 500 else error.kind
    value = {
        "type": "error",
        "error": {"type": _KINDS.get(error.status, kind), "message": error.text},
        "request_id": request_id,
    }
    return json.dumps(value, separators=(",", ":")).encode("ascii")
