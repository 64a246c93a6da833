"""The verifying transports in all their flavours, asking a gateway in process.

`FLAVOURS` has httpx and httpx2, each sync and async. `ask` sends one request, reads the
answer as far as it goes, and gives back what was handed on and the error, if any.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import httpx
import httpx2
from fakes.attested_gateway import CHAT, AttestedGateway, inner
from fakes.world import REQUEST

import attest.client.httpx
import attest.client.httpx2
from attest.errors import AttestError

__all__ = ["FLAVOURS", "Answer", "Flavour", "ask"]

_OURS = {httpx: attest.client.httpx, httpx2: attest.client.httpx2}


@dataclass(frozen=True, repr=False)
class Flavour:
    """One library, sync or async."""

    http: Any
    is_async: bool

    def __repr__(self) -> str:
        return f"{self.http.__name__}-{'async' if self.is_async else 'sync'}"


FLAVOURS = [Flavour(http, is_async) for http in _OURS for is_async in (False, True)]


@dataclass
class Answer:
    """What a caller got: the head, the pieces of the body in order, the error."""

    status: int = 0
    pieces: list[bytes] = field(default_factory=list)
    error: AttestError | None = None

    @property
    def body(self) -> bytes:
        """All that was handed on."""
        return b"".join(self.pieces)


def ask(
    flavour: Flavour,
    gateway: AttestedGateway,
    body: bytes = REQUEST,
    *,
    path: str = CHAT,
    method: str = "POST",
    headers: dict[str, str] | None = None,
    **options: Any,
) -> Answer:
    """Ask; `options` are those of the transport, the policy is the world's."""
    options = {"clock": lambda: gateway.world.now, **options}
    options = {"inner": inner(gateway, flavour.http), **options}
    policy = options.pop("policy", gateway.world.policy)
    arguments = (method, "https://gateway.test" + path)
    content: dict[str, Any] = {"content": body, "headers": headers}
    ours, answer = _OURS[flavour.http], Answer()

    def sync() -> None:
        transport = ours.AttestTransport(policy, **options)
        with (
            flavour.http.Client(transport=transport) as client,
            client.stream(*arguments, **content) as response,
        ):
            answer.status = response.status_code
            for piece in response.iter_raw():
                answer.pieces.append(piece)

    async def unsync() -> None:
        transport = ours.AsyncAttestTransport(policy, **options)
        async with (
            flavour.http.AsyncClient(transport=transport) as client,
            client.stream(*arguments, **content) as response,
        ):
            answer.status = response.status_code
            async for piece in response.aiter_raw():
                answer.pieces.append(piece)

    try:
        if flavour.is_async:
            asyncio.run(unsync())
        else:
            sync()
    except AttestError as error:
        answer.error = error
    return answer
