"""What one request and its answer leave behind for the token."""

import os
import time
from dataclasses import dataclass, field
from typing import Protocol

from attest.claims import Outcome
from attest.dialects import Dialect
from attest.digests import digest
from attest.keys import b64url_encode
from attest.request import RequestFacts
from attest.transcript import Transcript

__all__ = ["NO_FACTS", "Exchange", "Sealed", "Sealer", "new_id"]

# Stands in where a body could not be read as a request of its dialect.
NO_FACTS = RequestFacts(
    model=None,
    stream=False,
    expected_choices=1,
    sampling={},
    system_prompt=None,
    semantic=None,
)


def new_id() -> str:
    """An unguessable id: whoever holds it may read the attestation.

    `att_` and 22 characters of base64url: 48 bits of milliseconds since the epoch, big
    endian, then 80 random ones, in the order of a UUIDv7 (RFC 9562 §5.7) without its
    version and variant. Ids of about the same time begin alike, so a database puts them
    side by side. An id tells its time, as `iat` does, and nothing else.
    """
    now = time.time_ns() // 1_000_000
    return "att_" + b64url_encode(now.to_bytes(6, "big") + os.urandom(10))


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One request and its answer; the second half is filled in as the answer goes out.

    Attributes:
        received: exact body that the client sent.
        forwarded: exact body that the engine was sent.
        overrides: members of the request that are not known to be harmless.
        nonce: the client's `Attestation-Nonce`.
        stream: whether the answer was a stream, whatever was asked for.
        content_digest: of exactly the body bytes handed to the client's connection,
            our own attestation comment excluded.
        transcript: what the answer said; None where the status is an error, or where
            nothing came.
        ended_at: seconds since the epoch when the last byte was known.
        engine_seconds: how long the engine was asked, 0 where it was not.
    """

    request_id: str
    dialect: Dialect
    received: bytes
    forwarded: bytes
    facts: RequestFacts = NO_FACTS
    overrides: tuple[str, ...] = ()
    nonce: str | None = None
    id: str = field(default_factory=new_id)
    stream: bool = False
    status: int = 0
    content_digest: str = digest(b"")
    content_bytes: int = 0
    transcript: Transcript | None = None
    outcome: Outcome = Outcome.INCOMPLETE
    ended_at: float = 0.0
    engine_seconds: float = 0.0
    _began: float = field(default_factory=time.perf_counter)

    def age(self) -> float:
        """Seconds since the request's body was there."""
        return time.perf_counter() - self._began


@dataclass(frozen=True, slots=True)
class Sealed:
    """A signed attestation that is stored already, and how long that took."""

    id: str
    token: str
    signing_seconds: float
    storing_seconds: float


class Sealer(Protocol):
    """Signs exchanges and keeps what it signed."""

    def opened(self, attestation_id: str) -> None:
        """Note that an id was given out whose attestation is still to come."""

    async def seal(self, exchange: Exchange) -> Sealed:
        """Sign and store one; the token is durable before this returns.

        Raises:
            AttestError: it could not be signed or kept.
        """
