"""The verifying transport, for whichever HTTP library the SDK uses.

`attest.client.httpx` and `attest.client.httpx2` put their library's classes under it;
the two libraries have the same interface and share no class.

A POST is sent with a fresh `Attestation-Nonce` and `Accept-Encoding: identity`, and its
answer is handed on when it is proven:

- a body as a whole, untouched;
- a stream event by event as it comes. Its end, from the attestation or the terminal
  event on, is kept back until the whole is proven; the attestation's comment is taken
  out, since some parsers choke on comments. Whoever stops reading before the end has
  an unproven answer. With `buffered`, nothing of it is handed on before that;
- an error (status 400 and above) at once, for the SDK to raise; it is no answer.

Other requests pass untouched.
"""

import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import anyio

from attest.client._exchange import (
    MAX_ANSWER,
    MAX_EVIDENCE,
    Content,
    Examiner,
    Exchange,
    Fetch,
    Fetched,
    Kind,
    OnEvidence,
    StreamCheck,
    is_attested,
    read_head,
)
from attest.delivery import NONCE_HEADER
from attest.errors import AttestError, EvidenceUnavailableError
from attest.policy import Policy

__all__ = [
    "AsyncCheckedStream",
    "AsyncVerifier",
    "CheckedStream",
    "SyncVerifier",
]

# Requests, responses and streams of either library: same members, no common class.
_Request = Any
_Response = Any
_Stream = Any

_CREDENTIALS = ("authorization", "x-api-key", "api-key")


class CheckedStream:
    """The bytes of an answer that is checked while it passes."""

    def __init__(
        self, inner: _Stream, check: StreamCheck, judge: Callable[[Content], None]
    ) -> None:
        self._inner, self._check, self._judge = inner, check, judge

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._inner:
            if ready := self._check.feed(chunk):
                yield ready
        rest, content = self._check.finish()
        # The pool may have this one connection, and judging may need it.
        self._inner.close()
        self._judge(content)
        yield rest

    def close(self) -> None:
        """Release the connection."""
        self._inner.close()


class AsyncCheckedStream:
    """The same, for async clients."""

    def __init__(
        self,
        inner: _Stream,
        check: StreamCheck,
        judge: Callable[[Content], Awaitable[None]],
    ) -> None:
        self._inner, self._check, self._judge = inner, check, judge

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            if ready := self._check.feed(chunk):
                yield ready
        rest, content = self._check.finish()
        await self._inner.aclose()
        await self._judge(content)
        yield rest

    async def aclose(self) -> None:
        """Release the connection."""
        await self._inner.aclose()


class _Verifier:
    """What both transports share."""

    # Of the library: itself, the class of the inner transport, our stream.
    _http: Any
    _default: Any
    _stream: Any

    def __init__(
        self,
        policy: Policy,
        *,
        inner: Any = None,
        on_evidence: OnEvidence | None = None,
        buffered: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._inner = inner or self._default()
        self._buffered = buffered
        self._examiner = Examiner(policy, on_evidence=on_evidence, clock=clock)

    def _open(self, request: _Request, content: bytes) -> Exchange:
        nonce = secrets.token_urlsafe(24)
        request.headers[NONCE_HEADER] = nonce
        request.headers["accept-encoding"] = "identity"
        # The gateway may lie below a path of a proxy; the API's own begins with /v1/.
        prefix, _, _ = request.url.path.rpartition("/v1/")
        fields = request.headers
        timeout = request.extensions.get("timeout")
        return Exchange(
            gateway=str(request.url.join(prefix or "/")).rstrip("/"),
            request=content,
            nonce=nonce,
            credentials={name: fields[name] for name in _CREDENTIALS if name in fields},
            extensions={} if timeout is None else {"timeout": timeout},
        )

    def _evidence_request(self, exchange: Exchange, path: str) -> _Request:
        return self._http.Request(
            "GET",
            exchange.gateway + path,
            headers={**exchange.credentials, "accept-encoding": "identity"},
            extensions=exchange.extensions,
        )

    def _check(self) -> StreamCheck:
        return StreamCheck(keep=self._examiner.keeps, buffered=self._buffered)

    def _is_recorded(self, exchange: Exchange) -> bool:
        """Whether somebody wants the evidence about an error."""
        return self._examiner.keeps and exchange.token is not None


class SyncVerifier(_Verifier):
    """The transport for sync clients; `attest.client.httpx2` says how to use it."""

    def handle_request(self, request: _Request) -> _Response:
        """Send one request; its answer is proven, or will be at its end.

        Raises:
            VerificationError: the answer is not what a gateway attested.
            EvidenceUnavailableError: cannot tell, most often because the answer carries
                no attestation.
        """
        if not is_attested(request.method, request.url.path):
            return self._inner.handle_request(request)
        exchange = self._open(request, request.read())
        response = self._inner.handle_request(request)
        try:
            self._examine(exchange, response)
        except BaseException:
            response.stream.close()
            raise
        return response

    def close(self) -> None:
        """Close the inner transport."""
        self._inner.close()

    def _examine(self, exchange: Exchange, response: _Response) -> None:
        kind = read_head(exchange, response.status_code, response.headers)
        if kind is Kind.STREAM:
            judge = partial(self._judge, exchange)
            response.stream = self._stream(response.stream, self._check(), judge)
        elif kind is Kind.BODY:
            self._judge(exchange, self._read(exchange, response))
        elif self._is_recorded(exchange):
            content = self._read(exchange, response)
            with suppress(AttestError):
                self._judge(exchange, content)

    def _read(self, exchange: Exchange, response: _Response) -> Content:
        body = _read(response.stream, MAX_ANSWER)
        response.stream = self._http.ByteStream(body)
        return Content(token=exchange.token, body=body)

    def _judge(self, exchange: Exchange, content: Content) -> None:
        plan = self._examiner.judge(exchange, content)
        with suppress(StopIteration):
            fetch = next(plan)
            while True:
                try:
                    fetched = self._fetch(exchange, fetch)
                except EvidenceUnavailableError as error:
                    fetch = plan.throw(error)
                else:
                    fetch = plan.send(fetched)

    def _fetch(self, exchange: Exchange, fetch: Fetch) -> Fetched:
        if fetch.after_seconds:
            time.sleep(fetch.after_seconds)
        request = self._evidence_request(exchange, fetch.path)
        try:
            response = self._inner.handle_request(request)
            body = _read(response.stream, MAX_EVIDENCE)
        except self._http.RequestError as error:
            raise _unreachable(fetch, error) from error
        _check_coding(fetch, response)
        retry_after = response.headers.get("retry-after")
        return Fetched(response.status_code, body, retry_after)


class AsyncVerifier(_Verifier):
    """The same, for async clients."""

    async def handle_async_request(self, request: _Request) -> _Response:
        """Send one request; its answer is proven, or will be at its end.

        Raises:
            VerificationError: the answer is not what a gateway attested.
            EvidenceUnavailableError: cannot tell, most often because the answer carries
                no attestation.
        """
        if not is_attested(request.method, request.url.path):
            return await self._inner.handle_async_request(request)
        exchange = self._open(request, await request.aread())
        response = await self._inner.handle_async_request(request)
        try:
            await self._examine(exchange, response)
        except BaseException:
            await response.stream.aclose()
            raise
        return response

    async def aclose(self) -> None:
        """Close the inner transport."""
        await self._inner.aclose()

    async def _examine(self, exchange: Exchange, response: _Response) -> None:
        kind = read_head(exchange, response.status_code, response.headers)
        if kind is Kind.STREAM:
            judge = partial(self._judge, exchange)
            response.stream = self._stream(response.stream, self._check(), judge)
        elif kind is Kind.BODY:
            await self._judge(exchange, await self._read(exchange, response))
        elif self._is_recorded(exchange):
            content = await self._read(exchange, response)
            with suppress(AttestError):
                await self._judge(exchange, content)

    async def _read(self, exchange: Exchange, response: _Response) -> Content:
        body = await _aread(response.stream, MAX_ANSWER)
        response.stream = self._http.ByteStream(body)
        return Content(token=exchange.token, body=body)

    async def _judge(self, exchange: Exchange, content: Content) -> None:
        plan = self._examiner.judge(exchange, content)
        with suppress(StopIteration):
            fetch = next(plan)
            while True:
                try:
                    fetched = await self._fetch(exchange, fetch)
                except EvidenceUnavailableError as error:
                    fetch = plan.throw(error)
                else:
                    fetch = plan.send(fetched)

    async def _fetch(self, exchange: Exchange, fetch: Fetch) -> Fetched:
        if fetch.after_seconds:
            await anyio.sleep(fetch.after_seconds)
        request = self._evidence_request(exchange, fetch.path)
        try:
            response = await self._inner.handle_async_request(request)
            body = await _aread(response.stream, MAX_EVIDENCE)
        except self._http.RequestError as error:
            raise _unreachable(fetch, error) from error
        _check_coding(fetch, response)
        retry_after = response.headers.get("retry-after")
        return Fetched(response.status_code, body, retry_after)


def _read(stream: _Stream, limit: int) -> bytes:
    body = bytearray()
    try:
        for chunk in stream:
            body += chunk
            _check_size(body, limit)
    finally:
        stream.close()
    return bytes(body)


async def _aread(stream: _Stream, limit: int) -> bytes:
    body = bytearray()
    try:
        async for chunk in stream:
            body += chunk
            _check_size(body, limit)
    finally:
        await stream.aclose()
    return bytes(body)


def _check_size(body: bytearray, limit: int) -> None:
    if len(body) > limit:
        raise EvidenceUnavailableError(
            f"an answer of over {limit >> 20} MiB is not checked"
        )


def _check_coding(fetch: Fetch, response: _Response) -> None:
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise EvidenceUnavailableError(
            f"{fetch.path}: compressed, though identity was asked for",
            hint="turn compression off in the proxy before the gateway",
        )


def _unreachable(fetch: Fetch, error: Exception) -> EvidenceUnavailableError:
    return EvidenceUnavailableError(
        f"{fetch.path}: {type(error).__name__} while fetching evidence",
        hint="the answer came, but its evidence did not; ask again",
    )
