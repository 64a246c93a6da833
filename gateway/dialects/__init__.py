"""What differs between the API dialects at the gateway's edge."""

from collections.abc import Callable, Mapping

from attest.dialects import Dialect
from gateway.dialects import anthropic, openai
from gateway.errors import HttpError

__all__ = ["error_body"]

# Every other dialect has OpenAI's, vLLM's own ones too.
_ERROR_BODIES: Mapping[Dialect | None, Callable[[HttpError, str | None], bytes]] = {
    Dialect.MESSAGES: anthropic.error_body,
}


def error_body(
    error: HttpError, dialect: Dialect | None = None, *, request_id: str | None = None
) -> bytes:
    """The JSON body by which a client of this dialect learns of the error."""
    return _ERROR_BODIES.get(dialect, openai.error_body)(error, request_id)
