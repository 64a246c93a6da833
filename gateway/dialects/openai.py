"""OpenAI's shape of an error, which vLLM has too."""

import json

from gateway.errors import HttpError

__all__ = ["error_body"]


def error_body(error: HttpError, request_id: str | None = None) -> bytes:
    """`{"error": {message, type, param, code}}`; `code` is the status, as vLLM has it.

    Written in ASCII, so that no reader of lines finds an end of line in it.
    """
    del request_id  # the API gives it as a header alone
    value = {
        "error": {
            "message": error.text,
            "type": error.kind,
            "param": error.param,
            "code": error.status,
        }
    }
    return json.dumps(value, separators=(",", ":")).encode("ascii")
