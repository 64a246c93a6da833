"""Turns a finished exchange into a signed, stored attestation."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import msgspec

from attest import disclosures, tokens
from attest.bundle import Bundle
from attest.canonical import canonical
from attest.claims import SystemPrompt
from attest.digests import digest, digest_text
from attest.log.proof import LogProof
from attest.request import prompt_digest, semantic_digest
from attest.transcript import Transcript, output_digest
from gateway.boot import Boot, Session, follow
from gateway.exchange import Exchange, Sealed
from gateway.store.records import Record

__all__ = ["Attester", "Store", "canonical_json", "private_claims", "public_claims"]

_to_json = msgspec.json.Encoder().encode
# Of what `canonical` calls simple it writes the RFC 8785 form, as a test holds.
_sorted_json = msgspec.json.Encoder(order="sorted").encode


class Store(Protocol):
    """Durable home of attestations."""

    async def put(self, record: Record) -> None:
        """Keep one; returns when it is durable. Cancelling that does not undo it."""

    async def get(self, attestation_id: str) -> tuple[str, bytes] | None:
        """Token and endorsements, None when unknown."""

    async def log_proof(self, attestation_id: str) -> LogProof | None:
        """That it is in the log; None where it is not, or not yet."""

    async def put_boot(self, digest: str, endorsements: bytes, record: str) -> None:
        """Keep what attestations refer to; returns when it is durable."""

    async def make_room(self) -> None:
        """Return when there is place for more."""


def canonical_json(value: Any) -> bytes:
    """The same as `canonical`, raising as it does, in a third of the time."""
    return canonical(value, simple=_sorted_json)


def public_claims(
    exchange: Exchange, boot: Boot, *, prompt: str | None
) -> dict[str, Any]:
    """The claims in the clear, but for seq, prev, iat and the salted digests.

    `prompt` is the digest of the system prompt, which the private claims hold too.
    """
    facts, transcript = exchange.facts, exchange.transcript
    claims: dict[str, Any] = {
        **boot.claims,
        "jti": exchange.id,
        "toe": int(exchange.ended_at),
        "system_prompt": _system_prompt(prompt, boot).value,
        "res": {
            "status": exchange.status,
            "content_digest": exchange.content_digest,
            "content_bytes": exchange.content_bytes,
            "stream": exchange.stream,
            "outcome": exchange.outcome.value,
            "choices": 0 if transcript is None else transcript.choice_count,
        },
    }
    if exchange.nonce is not None:
        claims["eat_nonce"] = exchange.nonce
    if facts.model is not None:
        claims["gen_ai.request.model"] = facts.model
    if exchange.forwarded != exchange.received:
        claims["altered"] = True
    if exchange.overrides:
        claims["overrides"] = exchange.overrides
    if transcript is not None:
        claims |= _answer_claims(transcript)
    return claims


def _system_prompt(found: str | None, boot: Boot) -> SystemPrompt:
    if found is None:
        return SystemPrompt.ABSENT
    if found in boot.manifest.runtime.system_prompts:
        return SystemPrompt.GOVERNED
    return SystemPrompt.UNLISTED


def _answer_claims(transcript: Transcript) -> dict[str, Any]:
    usage = transcript.usage
    claims = {
        "sub": transcript.response_id,
        "gen_ai.response.model": transcript.response_model,
        "gen_ai.response.finish_reasons": transcript.finish_reasons or None,
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
    }
    return {name: value for name, value in claims.items() if value is not None}


def private_claims(exchange: Exchange) -> dict[str, Any]:
    """The claims that are only committed to, under a salt."""
    facts, forwarded = exchange.facts, exchange.forwarded
    claims: dict[str, Any] = {"request.digest": digest(exchange.received)}
    if forwarded != exchange.received:
        claims["request.forwarded_digest"] = digest(forwarded)
    if (semantic := semantic_digest(facts, write=canonical_json)) is not None:
        claims["request.semantic_digest"] = semantic
    if (prompt := prompt_digest(facts)) is not None:
        claims["system_prompt.digest"] = prompt
    if facts.sampling:
        claims["request.sampling"] = dict(facts.sampling)
    if exchange.transcript is not None:
        for output in exchange.transcript.outputs():
            found = output_digest(output, write=canonical_json)
            claims[f"out.{output['index']}"] = found
    return claims


class Attester:
    """Signs exchanges in one unbroken sequence per boot, and keeps each before it goes.

    The attestations of one boot form a chain: `seq` counts from 0 and `prev` is the
    digest of the one before, so a gap or a fork shows to whoever holds its neighbours.
    """

    def __init__(self, boot: Boot, store: Store, clock: Callable[[], float]) -> None:
        self.boot = boot
        self._store = store
        self._clock = clock
        self._seq = 0
        self._prev: str | None = None
        self._open: set[str] = set()
        self._turn = asyncio.Event()
        self._turn.set()

    def mark_verified(self, at: int) -> None:
        """Say from here on that the weights were looked at again, and when.

        After `mark_stale` it says nothing more.
        """
        if self.boot.weights.stale is None:
            self.boot = self.boot.verified(at)

    def mark_stale(self, since: int, reason: str) -> None:
        """Say from here on that something changed, and claim no measurement."""
        self.boot = self.boot.stale(since, reason)

    async def rotate(self, session: Session) -> None:
        """Sign with the key of `session` from here on.

        Attestations that are ready meanwhile wait for the few milliseconds that it
        takes to keep the new boot record; none falls between the two.

        Raises:
            StoreError: the record could not be kept; the old key then stays.
        """
        self._turn.clear()
        try:
            now = int(self._clock())
            boot = follow(self.boot, session, count=self._seq, now=now)
            await self._store.put_boot(boot.digest, boot.endorsements(), boot.record)
            # It may have been looked at, or have changed, while the record was written.
            self.boot = replace(boot, weights=self.boot.weights)
            self._seq, self._prev = 0, None
        finally:
            self._turn.set()

    async def try_to_keep(self) -> None:
        """Return when something could be written to where attestations are kept.

        Raises:
            StoreError: it could not.
        """
        await self._store.make_room()

    def opened(self, attestation_id: str) -> None:
        """Note that an id was given out whose attestation is still to come."""
        self._open.add(attestation_id)

    @property
    def open_count(self) -> int:
        """How many ids were given out whose attestation is still to come."""
        return len(self._open)

    def is_open(self, attestation_id: str) -> bool:
        """Whether the attestation of an id that was given out is still to come."""
        return attestation_id in self._open

    async def seal(self, exchange: Exchange) -> Sealed:
        """Sign and store; the token is on disk before this returns.

        Raises:
            StoreError: it could not be kept; the token is then not given out.
        """
        try:
            return await self._seal(exchange)
        finally:
            self._open.discard(exchange.id)

    async def _seal(self, exchange: Exchange) -> Sealed:
        await self._turn.wait()
        began = time.perf_counter()
        private = private_claims(exchange)
        prompt = private.get("system_prompt.digest")
        public = public_claims(exchange, self.boot, prompt=prompt)
        hidden, opened = disclosures.conceal(private, encode=_to_json)
        # No await between reading and advancing the chain: that is what orders it.
        claims = {
            **public,
            "iat": int(self._clock()),
            "seq": self._seq,
            "prev": self._prev,
            **hidden,
        }
        compact = tokens.mint(
            "inference-attestation+jwt",
            claims,
            self.boot.session.key,
            encode=_to_json,
        )
        self._seq, seq = self._seq + 1, self._seq
        leaf = tokens.signing_hash(compact)
        self._prev = digest_text(leaf)
        token = disclosures.join(compact, opened)
        record = Record(exchange.id, self.boot.digest, seq, token, leaf)
        signed = time.perf_counter()
        await self._store.put(record)
        return Sealed(
            id=exchange.id,
            token=token,
            signing_seconds=signed - began,
            storing_seconds=time.perf_counter() - signed,
        )

    async def bundle(self, attestation_id: str) -> Bundle | None:
        """The evidence about one answer, None when unknown here."""
        found = await self._store.get(attestation_id)
        if found is None:
            return None
        token, endorsements = found
        value = json.loads(endorsements)
        return Bundle(
            token=token,
            key_certificates=tuple(value["keyCertificates"]),
            boot_record=value["bootRecord"],
            manifest=json.dumps(value["manifest"]).encode(),
            log=await self._store.log_proof(attestation_id),
        )
