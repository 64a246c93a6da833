"""One GET over HTTP, for the commands that may fetch. The verifier never does."""

import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from attest.errors import ConfigurationError, EvidenceUnavailableError

__all__ = ["Fetched", "check_address", "fetch"]

_TIMEOUT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came back; `retry_after` is the header as it came, "" where there is none.

    Other statuses than those of success raise.
    """

    status: int
    body: bytes
    retry_after: str = ""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """An API key goes to the address that was typed, nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


def check_address(url: str) -> None:
    """Return when it is an http or https address.

    Raises:
        ConfigurationError: it is not.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise ConfigurationError(
            f"{url}: not an http address",
            hint="give the gateway's address, such as https://gateway.example",
        )


def fetch(url: str, *, api_key: str = "", max_bytes: int) -> Fetched:
    """GET an address that `check_address` has seen.

    Raises:
        EvidenceUnavailableError: it can't be reached, answers with an error or a
            redirect, or with more than `max_bytes`.
    """
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  # checked
    try:
        with _OPENER.open(request, timeout=_TIMEOUT_SECONDS) as answer:
            body: bytes = answer.read(max_bytes + 1)
            found = Fetched(
                answer.status, body, answer.headers.get("retry-after") or ""
            )
    except urllib.error.HTTPError as error:
        error.close()
        hint = "an API key may be needed" if error.code in {401, 403} else ""
        raise EvidenceUnavailableError(
            f"{url}: status {error.code}", hint=hint
        ) from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or type(error).__name__
        raise EvidenceUnavailableError(f"{url}: {reason}") from error
    if len(found.body) > max_bytes:
        raise EvidenceUnavailableError(f"{url}: more than {max_bytes} bytes")
    return found
