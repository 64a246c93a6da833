"""The verifying transport for SDKs on httpx2: openai 3, anthropic 2 and others."""

import httpx2

from attest.client.transport import (
    AsyncCheckedStream,
    AsyncVerifier,
    CheckedStream,
    SyncVerifier,
)

__all__ = ["AsyncAttestTransport", "AttestTransport"]


class _Stream(CheckedStream, httpx2.SyncByteStream):
    pass


class _AsyncStream(AsyncCheckedStream, httpx2.AsyncByteStream):
    pass


class AttestTransport(SyncVerifier, httpx2.BaseTransport):
    """Sends requests, and hands on no answer that is not proven.

        client = httpx2.Client(transport=AttestTransport(policy))

    Takes a policy, and as keywords:

    - `inner`: the transport that does the work, `httpx2.HTTPTransport()` by default.
      Give your own for a proxy or a private CA.
    - `on_evidence`: called with the verdict and the bundle of every attested answer,
      before that is handed on or an error raised. Without it nothing is kept: streams
      are hashed as they pass.
    - `buffered`: hand on nothing of a stream before the whole is proven, up to 64 MiB.
    - `clock`: seconds since the epoch, UTC.

    Raises AttestError where an answer is not proven, from the request or, for a stream,
    from the iteration, before it ends. Errors of the network stay what they are.
    """

    _http = httpx2
    _default = httpx2.HTTPTransport
    _stream = _Stream


class AsyncAttestTransport(AsyncVerifier, httpx2.AsyncBaseTransport):
    """The same for `httpx2.AsyncClient`, over `httpx2.AsyncHTTPTransport()`."""

    _http = httpx2
    _default = httpx2.AsyncHTTPTransport
    _stream = _AsyncStream
