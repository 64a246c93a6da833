"""What the gateway asks the engine for itself: evidence, models, version, a canary."""

import asyncio
import json
import re
import ssl
from typing import Any

from attest.canonical import read_object
from attest.errors import FormatError
from gateway.engine.address import Address
from gateway.engine.peer import Peer, peer_of
from gateway.errors import EngineDiedError
from gateway.http import httpx

__all__ = ["MAX_EVIDENCE_BYTES", "EngineClient", "tls_context"]

MAX_EVIDENCE_BYTES = 4 << 20
_TIMEOUT_SECONDS = 35
_PATH = re.compile(r"/[A-Za-z0-9_/.-]*\Z")


def tls_context(address: Address) -> ssl.SSLContext:
    """Trusts the system's authorities where TLS is used, and nobody where it is not.

    Reading the list of authorities takes 0.2 s, which only an https address is worth.
    """
    if address.tls:
        return ssl.create_default_context()
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class EngineClient:
    """Control calls to one address; a connection of its own each, none is kept.

    A call thus always reaches whoever listens now, not whoever did.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._tls = tls_context(address)

    def _client(self) -> httpx.AsyncClient:
        uds = None if self.address.socket is None else str(self.address.socket)
        transport = httpx.AsyncHTTPTransport(uds=uds, verify=self._tls, trust_env=False)
        return httpx.AsyncClient(transport=transport, trust_env=False)

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: str = "",
        seconds: float = _TIMEOUT_SECONDS,
    ) -> tuple[int, bytes]:
        """Status and body, at most a little over 4 MiB of it.

        Raises:
            httpx.HTTPError: no connection, or it broke, or nothing came for `seconds`.
        """
        assert _PATH.match(path)  # noqa: S101 - our own paths only
        content = None if body is None else json.dumps(body).encode()
        fields = {} if body is None else {"content-type": "application/json"}
        url = self.address.base_url + path + (f"?{query}" if query else "")
        data = bytearray()
        async with (
            self._client() as client,
            client.stream(
                method, url, content=content, headers=fields, timeout=seconds
            ) as response,
        ):
            async for chunk in response.aiter_raw():
                data += chunk
                if len(data) > MAX_EVIDENCE_BYTES:
                    break  # read_object refuses it
        return response.status_code, bytes(data)

    async def object(self, path: str) -> dict[str, Any] | None:
        """The JSON object at a path; None unless the status is 200.

        Raises:
            EngineDiedError: no answer.
            FormatError: no strict JSON object below 4 MiB.
        """
        try:
            status, data = await self.call("GET", path)
        except httpx.HTTPError as error:
            raise _silent(error) from error
        return (
            None if status != 200 else read_object(data, max_bytes=MAX_EVIDENCE_BYTES)
        )

    async def evidence(
        self,
        nonce: str,
        path: str = "/attest/evidence",
        *,
        seconds: float = _TIMEOUT_SECONDS,
    ) -> dict[str, Any]:
        """The plug-in's report, with this nonce in it.

        Args:
            nonce: 8 to 128 of `A-Z a-z 0-9 _ -`.
            path: which report.
            seconds: how long it may take.

        Raises:
            EngineDiedError: no answer in time, or an error.
            FormatError: the answer is no strict JSON object below 4 MiB, or has
                another nonce.
        """
        try:
            status, data = await self.call(
                "GET", path, query=f"nonce={nonce}", seconds=seconds
            )
        except httpx.HTTPError as error:
            raise _silent(error) from error
        if status != 200:
            raise EngineDiedError(
                f"engine: gives no evidence: HTTP status {status}",
                hint="look at the engine's log",
            )
        evidence = read_object(data, max_bytes=MAX_EVIDENCE_BYTES)
        if evidence.get("nonce") != nonce:
            raise FormatError("engine: the evidence has another nonce")
        return evidence

    async def peer(self) -> Peer | None:
        """Who listens now; None for TCP, where the kernel does not know.

        Raises:
            EngineDiedError: nobody does.
        """
        if self.address.socket is None:
            return None
        try:
            _, writer = await asyncio.open_unix_connection(str(self.address.socket))
        except OSError as error:
            raise EngineDiedError(
                f"engine: {self.address}: {error.strerror}",
                hint="look at the engine's log",
            ) from error
        try:
            return peer_of(writer.get_extra_info("socket"))
        finally:
            writer.transport.abort()


def _silent(error: httpx.HTTPError) -> EngineDiedError:
    return EngineDiedError(
        f"engine: gives no evidence: {type(error).__name__}",
        hint="look at the engine's log; the gateway verifies it again once it is back",
    )
