"""What differs between the API dialects at the gateway's edge."""

from collections.abc import Callable, Mapping

from attest.dialects import Dialect
from gateway.dialects import openai
from gateway.errors import HttpError

__all__ = ["error_body"]

_ERROR_BODIES: Mapping[Dialect, Callable[[HttpError], bytes]] = {
    Dialect.CHAT: openai.error_body,
    Dialect.COMPLETIONS: openai.error_body,
}


def error_body(error: HttpError, dialect: Dialect | None = None) -> bytes:
    """The JSON body by which a client of this dialect learns of the error."""
    render = openai.error_body if dialect is None else _ERROR_BODIES[dialect]
    return render(error)
