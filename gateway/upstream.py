"""The connection to the engine: one narrow interface, and httpx behind it.

The transport is used without a client around it. A client would follow redirects, keep
cookies, read proxy settings from the environment and ask for compressed answers; none
of that may happen between an engine and its attestation.
"""

import ssl
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol, cast

from gateway.engine.peer import Peer, peer_of
from gateway.errors import UpstreamDownError, UpstreamError
from gateway.http import httpx

__all__ = ["HttpUpstream", "Upstream", "UpstreamResponse"]

# vLLM drops idle connections after 5 s. Ours are dropped before, so that a request is
# rarely written into a connection that is just being closed.
_KEEPALIVE_SECONDS = 3.0
_CONNECT_SECONDS = 5.0
_WRITE_SECONDS = 60.0
# Between two reads. A long answer that is not streamed is one silence from start to
# end; OpenAI's own clients wait for ten minutes.
_READ_SECONDS = 600.0


class UpstreamResponse(Protocol):
    """An answer whose head has come."""

    @property
    def status(self) -> int:
        """HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Header fields, names in lower case; of a repeated one the last."""

    def aiter_raw(self) -> AsyncGenerator[bytes]:
        """The body as it arrives, with whatever content coding it has.

        Raises:
            UpstreamError: the connection broke, or the body is shorter than announced.
        """

    async def aclose(self) -> None:
        """Give the connection back; one that was not read to its end is closed."""


class Upstream(Protocol):
    """Where requests go."""

    async def open(
        self, method: str, path: str, *, headers: Mapping[str, str], body: bytes
    ) -> UpstreamResponse:
        """Send a request and wait for the head of the answer.

        Raises:
            UpstreamDownError: no connection, or to another process than the verified
                one; the engine saw nothing of the request.
            UpstreamError: the connection broke, timed out or did not speak HTTP.
        """

    async def aclose(self) -> None:
        """Close every connection."""


class _HttpResponse:
    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._headers = {
            name.decode("ascii").lower(): value.decode("latin-1")
            for name, value in response.headers.raw
        }

    @property
    def status(self) -> int:
        return self._response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        return self._headers

    async def aiter_raw(self) -> AsyncGenerator[bytes]:
        stream = cast("httpx.AsyncByteStream", self._response.stream)
        try:
            async for chunk in stream:
                yield chunk
        except httpx.TransportError as error:
            raise _broken(error) from None

    async def aclose(self) -> None:
        await self._response.aclose()


class HttpUpstream:
    """An engine that speaks HTTP/1.1 on a Unix socket or a port.

    With `peer`, every new connection must be to that very process, or it is closed
    before a byte is sent: whoever took the socket over is never asked.
    There is no cap on connections here: the gateway's own cap on requests in flight is
    the only one, so that a request never waits for a connection.
    """

    def __init__(
        self,
        *,
        uds: str | None = None,
        base_url: str = "http://engine",
        read_seconds: float = _READ_SECONDS,
        peer: Peer | None = None,
    ) -> None:
        self._peer = peer
        self._base_url = base_url.rstrip("/")
        self._timeout = {
            "connect": _CONNECT_SECONDS,
            "read": read_seconds,
            "write": _WRITE_SECONDS,
            "pool": None,
        }
        self._transport = httpx.AsyncHTTPTransport(
            uds=uds,
            # Without TLS a context that trusts nobody: it saves reading the list of
            # authorities, 0.2 s of every start.
            verify=ssl.create_default_context()
            if self._base_url.startswith("https:")
            else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            trust_env=False,
            limits=httpx.Limits(
                max_connections=None,
                max_keepalive_connections=None,
                keepalive_expiry=_KEEPALIVE_SECONDS,
            ),
        )

    async def open(
        self, method: str, path: str, *, headers: Mapping[str, str], body: bytes
    ) -> UpstreamResponse:
        """See `Upstream.open`.

        Tried a second time only where the first connection was one that had been used
        before and broke before the head of an answer: the engine had just dropped it.
        """
        for attempt in (1, 2):
            connects: list[str] = []
            request = self._request(method, path, headers, body, connects)
            try:
                response = await self._transport.handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                raise UpstreamDownError(
                    "the engine takes no connection",
                    headers=(("retry-after", "5"),),
                ) from None
            except httpx.TransportError as error:
                reused = not connects
                if reused and attempt == 1 and not _timed_out(error):
                    continue
                raise _broken(error) from None
            return _HttpResponse(response)
        raise AssertionError  # pragma: no cover  # the second attempt never continues

    def _request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        connects: list[str],
    ) -> httpx.Request:
        async def trace(event: str, info: Mapping[str, Any]) -> None:
            if event.startswith("connection.connect_"):
                connects.append(event)
            if event == "connection.connect_unix_socket.complete":
                await self._check_peer(info["return_value"])

        return httpx.Request(
            method,
            self._base_url + path,
            headers=headers,
            content=body,
            extensions={"timeout": self._timeout, "trace": trace},
        )

    async def _check_peer(self, stream: Any) -> None:
        if self._peer is None:
            return
        if peer_of(stream.get_extra_info("socket")) != self._peer:
            await stream.aclose()
            raise UpstreamDownError(
                "another process than the verified engine listens on its socket",
                headers=(("retry-after", "5"),),
            )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()


def _timed_out(error: httpx.TransportError) -> bool:
    return isinstance(error, httpx.TimeoutException)


def _broken(error: httpx.TransportError) -> UpstreamError:
    # The class of the error says enough; its text may quote what the engine sent.
    if _timed_out(error):
        return UpstreamError("the engine did not answer in time", status=504)
    return UpstreamError(f"the engine broke off ({type(error).__name__})")
