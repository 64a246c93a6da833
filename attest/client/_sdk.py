"""What the helpers for SDKs share: an HTTP client of ours under the SDK's own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from attest.client._exchange import OnEvidence
from attest.errors import AttestError
from attest.policy import Policy

__all__ = ["Libraries", "async_http_client", "http_client"]

# Given the HTTP library, the request and our error: a response for the SDK, or raises.
Deliver = Callable[[Any, Any, AttestError], Any]


@dataclass(frozen=True, slots=True)
class Libraries:
    """An SDK, the HTTP library that it is made for, and our transports for that."""

    sdk: Any
    http: Any
    ours: Any


def http_client(
    libraries: Libraries,
    policy: Policy,
    *,
    on_evidence: OnEvidence | None,
    buffered: bool,
    deliver: Deliver,
) -> Any:
    """A client with the SDK's own limits and time-outs, whose answers are proven.

    SDKs take the exceptions of an HTTP client for broken connections and ask again;
    `deliver` brings our errors past that.
    """
    http: Any = libraries.http
    sdk = libraries.sdk

    class Client(http.Client):  # type: ignore[misc]  # of the library at hand
        def send(self, request: Any, **options: Any) -> Any:
            try:
                return super().send(request, **options)
            except AttestError as error:
                return deliver(http, request, error)

    inner = http.HTTPTransport(limits=sdk.DEFAULT_CONNECTION_LIMITS)
    transport = libraries.ours.AttestTransport(
        policy, inner=inner, on_evidence=on_evidence, buffered=buffered
    )
    return Client(
        transport=transport, timeout=sdk.DEFAULT_TIMEOUT, follow_redirects=True
    )


def async_http_client(
    libraries: Libraries,
    policy: Policy,
    *,
    on_evidence: OnEvidence | None,
    buffered: bool,
    deliver: Deliver,
) -> Any:
    """As `http_client`, asynchronous."""
    http: Any = libraries.http
    sdk = libraries.sdk

    class AsyncClient(http.AsyncClient):  # type: ignore[misc]  # likewise
        async def send(self, request: Any, **options: Any) -> Any:
            try:
                return await super().send(request, **options)
            except AttestError as error:
                return deliver(http, request, error)

    inner = http.AsyncHTTPTransport(limits=sdk.DEFAULT_CONNECTION_LIMITS)
    transport = libraries.ours.AsyncAttestTransport(
        policy, inner=inner, on_evidence=on_evidence, buffered=buffered
    )
    return AsyncClient(
        transport=transport, timeout=sdk.DEFAULT_TIMEOUT, follow_redirects=True
    )
