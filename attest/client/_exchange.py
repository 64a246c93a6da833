"""The decisions about one exchange, without any I/O.

What needs the network is a plan: a generator that yields a `Fetch` and is sent the
`Fetched`, or is thrown the EvidenceUnavailableError that says why there is none. So the
same code decides for every HTTP library, with and without async.
"""

import hashlib
import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any, TypeVar

from attest import disclosures, tokens
from attest.bundle import Bundle, Endorsements
from attest.canonical import read_object
from attest.delivery import ATTESTATION_HEADER, ID_HEADER, WELL_KNOWN, StreamGate
from attest.dialects import SHAPES
from attest.errors import (
    AttestError,
    EvidenceUnavailableError,
    FormatError,
    InputError,
    TranscriptMismatchError,
)
from attest.policy import Policy, Tier
from attest.transparency import named_logs
from attest.verify import Verdict, verify

__all__ = [
    "MAX_ANSWER",
    "MAX_EVIDENCE",
    "Content",
    "Examiner",
    "Exchange",
    "Fetch",
    "Fetched",
    "Kind",
    "OnEvidence",
    "Plan",
    "StreamCheck",
    "is_attested",
    "read_head",
]

MAX_ANSWER = 64 * 1024 * 1024
# A manifest of 8 MiB with room for the certificates.
MAX_EVIDENCE = 16 * 1024 * 1024

# They answer about text, not with text of the model.
_UNATTESTED = frozenset({"/tokenize", "/detokenize", "/v1/messages/count_tokens"})
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_TERMINALS = frozenset(word for shape in SHAPES.values() for word in shape.words)
_MAX_WAIT_SECONDS = 10.0
# Of an id that is unknown where it was asked for.
_MAX_TRIES = 3
# A gateway signs a head once a second, and asks its witnesses then.
_LOG_PAUSES = (0.5, 1.0, 1.5)
_NOT_YET_LOGGED = frozenset({"log.not_given", "log.unwitnessed"})
# Replicas behind one address have a boot each.
_MAX_BOOTS = 16
_UNREADABLE = Endorsements(key_certificates=(), boot_record="", manifest=b"{}")

_T = TypeVar("_T")
OnEvidence = Callable[[Verdict, Bundle], None]


@dataclass(frozen=True, slots=True)
class Fetch:
    """Wait, then GET this path of the gateway with the credentials of the exchange."""

    path: str
    after_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came of it."""

    status: int
    body: bytes
    retry_after: str | None = None


Plan = Generator[Fetch, Fetched, _T]


class Kind(Enum):
    """How an answer is treated."""

    ERROR = auto()
    BODY = auto()
    STREAM = auto()


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One request that must be attested, and what the head of its answer says.

    Attributes:
        gateway: URL under which the gateway's paths lie, without a slash at the end.
        credentials: header fields by which the gateway knows the client.
        extensions: what the HTTP library must know for further requests: timeouts.
        token: the attestation, when it came in a header.
    """

    gateway: str
    request: bytes
    nonce: str
    credentials: Mapping[str, str]
    extensions: Mapping[str, Any]
    status: int = 0
    token: str | None = None
    attestation_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """An answer to be judged: itself, or its digest without the comment."""

    token: str | None
    digest: str | None = None
    body: bytes | None = None


def is_attested(method: str, path: str) -> bool:
    """Whether the answer to such a request must be proven."""
    return method == "POST" and path not in _UNATTESTED


def read_head(exchange: Exchange, status: int, headers: Mapping[str, str]) -> Kind:
    """Note what the head of an answer says about its attestation.

    Raises:
        EvidenceUnavailableError: a redirect, or a body that somebody compressed.
    """
    exchange.status = status
    exchange.token = headers.get(ATTESTATION_HEADER)
    found = headers.get(ID_HEADER, "")
    # It becomes part of a URL.
    exchange.attestation_id = found if _ID.fullmatch(found) else None
    if 300 <= status < 400:
        raise EvidenceUnavailableError(
            f"{exchange.gateway}: answered with a redirect ({status}), which is not "
            "followed",
            hint="give the gateway's own URL as base_url",
        )
    if status >= 400:
        return Kind.ERROR
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise EvidenceUnavailableError(
            "the answer is compressed, though identity was asked for; the digest is "
            "over other bytes",
            hint="turn compression off in the proxy before the gateway",
        )
    kind = headers.get("content-type", "").lower()
    return Kind.STREAM if kind.startswith("text/event-stream") else Kind.BODY


class StreamCheck:
    """A stream on its way to the SDK: hashes it, and keeps its end back.

    Args:
        keep: somebody wants the body afterwards.
        buffered: nothing is handed on before the whole is proven. Without either of
            the two the memory in use does not grow with the answer.
    """

    def __init__(self, *, keep: bool, buffered: bool = False) -> None:
        self._gate = StreamGate(_TERMINALS)
        self._held: list[bytes] | None = [] if buffered else None
        self._hash = hashlib.sha256()
        self._kept: list[bytes] | None = [] if keep else None
        self._received = 0

    def feed(self, chunk: bytes) -> bytes:
        """What may be handed on now.

        Raises:
            EvidenceUnavailableError: an event of over 8 MiB, or over 64 MiB that have
                to be kept back.
        """
        self._received += len(chunk)
        self._keep(chunk)
        try:
            ready = self._gate.feed(chunk)
        except FormatError as error:
            raise EvidenceUnavailableError(
                f"the answer cannot be checked: {error}"
            ) from error
        if self._gate.held_bytes > MAX_ANSWER:
            raise EvidenceUnavailableError("the end of the stream is over 64 MiB long")
        self._hash.update(ready)
        if self._held is None:
            return ready
        self._held.append(ready)
        if self._received > MAX_ANSWER:
            raise EvidenceUnavailableError("the stream is over 64 MiB long")
        return b""

    def finish(self) -> tuple[bytes, Content]:
        """What to hand on once it is proven, and what to judge."""
        rest, token = self._gate.finish()
        self._hash.update(rest)
        rest = b"".join([*(self._held or ()), rest])
        body = None if self._kept is None else b"".join(self._kept)
        found = "sha256:" + self._hash.hexdigest()
        return rest, Content(token=token, digest=found, body=body)

    def _keep(self, chunk: bytes) -> None:
        if self._kept is None:
            return
        self._kept.append(chunk)
        if self._received > MAX_ANSWER:
            self._kept = None


class Examiner:
    """Judges the answers that one transport gets.

    Endorsements are kept by the digest of their boot record, whoever served them: they
    carry their own proof.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        on_evidence: OnEvidence | None,
        clock: Callable[[], float],
    ) -> None:
        self._policy = policy
        self._on_evidence = on_evidence
        self._clock = clock
        self._boots: dict[str, Endorsements] = {}

    @property
    def keeps(self) -> bool:
        """Whether somebody wants the evidence."""
        return self._on_evidence is not None

    def judge(self, exchange: Exchange, content: Content) -> Plan[None]:
        """Return when the answer is proven; the evidence is handed over either way.

        Where tier T2 is demanded, the gateway is asked again for up to 3 s until a
        witnessed checkpoint covers the attestation.

        Raises:
            VerificationError: a definite no.
            EvidenceUnavailableError: cannot tell.
        """
        verdict, bundle = yield from self._examined(exchange, content)
        pauses = iter(_LOG_PAUSES)
        while waiting := _awaits_log(verdict, self._policy):
            if (pause := next(pauses, None)) is None:
                break
            verdict, bundle = yield from self._examined(exchange, content, pause)
        if self._on_evidence is not None:
            self._on_evidence(verdict, bundle)
        if waiting:
            raise EvidenceUnavailableError(
                f"no witnessed checkpoint covers the attestation after "
                f"{sum(_LOG_PAUSES):.0f} s, and the policy demands {Tier.T2}",
                hint="ask for the bundle again later; are log and witnesses up?",
            )
        verdict.raise_unless_proven()
        attested = verdict.claims["res"]["status"]
        if attested != exchange.status:
            raise TranscriptMismatchError(
                f"the answer came with status {exchange.status}, attested is {attested}"
            )

    def _examined(
        self, exchange: Exchange, content: Content, pause: float = 0.0
    ) -> Plan[tuple[Verdict, Bundle]]:
        if content.token is None or _demands_more(self._policy):
            bundle = yield from self._by_id(exchange, pause)
        else:
            endorsements = yield from self._endorsements(exchange, content.token)
            bundle = Bundle.of(content.token, endorsements)
        bundle = replace(
            bundle,
            request=exchange.request,
            response=content.body,
            response_digest=content.digest,
        )
        verdict = verify(
            bundle, self._policy, at=int(self._clock()), nonce=exchange.nonce
        )
        return verdict, bundle

    def _endorsements(self, exchange: Exchange, token: str) -> Plan[Endorsements]:
        boot = _named_boot(token)
        if boot is None:
            return _UNREADABLE
        if boot in self._boots:
            return self._boots[boot]
        found, problem = None, None
        # A replica may answer for another one; a shared store knows the boots of all.
        for source in (self._well_known, self._by_id):
            try:
                found = (yield from source(exchange)).endorsements
            except EvidenceUnavailableError as error:
                problem = problem or error
                continue
            if self._remember(found) == boot:
                return found
        if found is None and problem is not None:
            raise problem
        return found or _UNREADABLE

    def _well_known(self, _: Exchange) -> Plan[Bundle]:
        fetched = yield Fetch(WELL_KNOWN)
        _check_status(fetched, WELL_KNOWN)
        try:
            value = read_object(fetched.body, max_bytes=MAX_EVIDENCE)
            return Bundle.of("", Endorsements.from_json(value))
        except InputError as error:
            raise _unusable(WELL_KNOWN, error) from error

    def _by_id(self, exchange: Exchange, pause: float = 0.0) -> Plan[Bundle]:
        if exchange.attestation_id is None:
            raise EvidenceUnavailableError(
                "the answer carries no attestation",
                hint=f"is it a gateway's? See {exchange.gateway}{WELL_KNOWN}",
            )
        path = f"/v1/attestations/{exchange.attestation_id}"
        fetched = yield Fetch(path, pause)
        waited, tries = 0.0, _MAX_TRIES
        # 404 with Retry-After: another process of the gateway may still have it open.
        while fetched.status == 202 or (
            fetched.status == 404 and fetched.retry_after is not None and tries
        ):
            tries -= fetched.status == 404
            pause = _pause(fetched.retry_after)
            waited += pause
            if waited > _MAX_WAIT_SECONDS:
                raise EvidenceUnavailableError(
                    f"{path}: not ready after {_MAX_WAIT_SECONDS:.0f} s",
                    hint="ask for it again later; the answer is not proven until then",
                )
            fetched = yield Fetch(path, pause)
        _check_status(fetched, path)
        try:
            return Bundle.loads(fetched.body)
        except InputError as error:
            raise _unusable(path, error) from error

    def _remember(self, found: Endorsements) -> str | None:
        try:
            boot = tokens.parse(found.boot_record, typ="eat+jwt").digest
        except AttestError:
            return None
        if len(self._boots) >= _MAX_BOOTS:
            del self._boots[next(iter(self._boots))]
        self._boots[boot] = found
        return boot


def _demands_more(policy: Policy) -> bool:
    """Whether a log proof or status lists are needed: the gateway's bundle has them."""
    logged = policy.min_tier.rank > Tier.T1.rank
    return logged or policy.max_status_age_seconds is not None


def _awaits_log(verdict: Verdict, policy: Policy) -> bool:
    """Whether a checkpoint that is still to come could be all that is missing."""
    problem, logged = verdict.problem, verdict.step(8)
    if problem is None or logged is None or verdict.manifest is None:
        return False
    return (
        policy.min_tier is Tier.T2
        and named_logs(verdict.manifest, policy)
        and {item.code for item in problem.findings} == {"policy.tier"}
        and not _NOT_YET_LOGGED.isdisjoint(item.code for item in logged.findings)
    )


def _named_boot(token: str) -> str | None:
    """The boot record that a token names, None when it can't be read."""
    try:
        compact, _ = disclosures.split(token)
        claims = tokens.parse(compact, typ="inference-attestation+jwt").claims
    except AttestError:
        return None
    boot = claims.get("boot")
    return boot if isinstance(boot, str) else None


def _check_status(fetched: Fetched, path: str) -> None:
    if fetched.status != 200:
        raise EvidenceUnavailableError(
            f"{path}: the gateway answered {fetched.status}",
            hint="is base_url an attest gateway, and is the API key right?",
        )


def _unusable(path: str, error: InputError) -> EvidenceUnavailableError:
    return EvidenceUnavailableError(f"{path}: {error}", hint=error.hint)


def _pause(retry_after: str | None) -> float:
    """Seconds to wait; a date (RFC 9110 §10.2.3) or nonsense counts as one second."""
    if retry_after is not None and re.fullmatch(r"[0-9]{1,3}", retry_after):
        return max(0.1, float(retry_after))
    return 1.0
