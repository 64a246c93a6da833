"""The auditor's memory and judgement: one record after the other, then the head."""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from attest import tokens
from attest.audit.findings import Finding, Kind, changes
from attest.bundle import Endorsements
from attest.canonical import read_object
from attest.certificates import certified_key
from attest.claims import check_claims
from attest.envelope import MAX_ENVELOPE
from attest.errors import (
    AttestError,
    EvidenceUnavailableError,
    FormatError,
    VerificationError,
)
from attest.keys import PublicKey, b64url_decode
from attest.log.checkpoint import Checkpoint, cosignatures, open_checkpoint
from attest.log.merkle import Frontier
from attest.log.note import NoteKey
from attest.manifest import Manifest, open_manifest
from attest.policy import Policy
from attest.refusal import verify_refusal
from attest.tokens import Token

__all__ = ["Auditor", "Chain", "Source"]

_BOOT = "eat+jwt"
_ATTESTATION = "inference-attestation+jwt"
_REFUSAL = "startup-refusal+jwt"
_MAX_ENDORSEMENTS = 2 * MAX_ENVELOPE


class Source(Protocol):
    """Whoever has a copy of the log."""

    def get(self, path: str) -> bytes:
        """What stands at a path under the log's prefix.

        Raises:
            EvidenceUnavailableError: it can't be had.
        """


@dataclass(slots=True)
class Chain:
    """The records of one boot, as far as they were read."""

    key: PublicKey
    manifest: str
    following: int = 0
    prev: str | None = None
    prompts: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """For the state file."""
        return {
            "jwk": self.key.jwk,
            "manifest": self.manifest,
            "following": self.following,
            "prev": self.prev,
            "prompts": self.prompts,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Chain":
        """Read what `to_json` wrote; it raises like any reading of a wrong shape."""
        return cls(
            PublicKey.from_jwk(value["jwk"]),
            str(value["manifest"]),
            int(value["following"]),
            value["prev"],
            dict(value["prompts"]),
        )


class Auditor:
    """Reads one log from its start, or from where an earlier reading ended.

    Attributes:
        origin: the log's name, once a head was accepted.
        head: the last head that was accepted.
        chains: the boots that were read, by digest of their boot record.
        alarms: every definite no so far; they stay.
        cosigned: how many witnesses cosigned the last head, and how many there are.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._frontier = Frontier()
        self._logs: dict[str, NoteKey] = {}
        self._witnesses: tuple[NoteKey, ...] = ()
        self._posture: dict[str, Any] = {}
        self.head: Checkpoint | None = None
        self.chains: dict[str, Chain] = {}
        self.alarms: list[Finding] = []
        self.cosigned = (0, 0)

    @property
    def size(self) -> int:
        """How many records were read."""
        return self._frontier.size

    def read(self, leaf: bytes, record: str, source: Source) -> list[Finding]:
        """Take the next record.

        Args:
            leaf: what the log's entry holds.
            record: the token that it stands for, "" where it is not shown.
            source: gives what a boot record or a refusal rests on.
        """
        index = self.size
        self._frontier.append(leaf)
        if not record:
            return [Finding(Kind.MISSING, index, "the record is not shown")]
        if tokens.signing_hash(record) != leaf:
            return [Finding(Kind.ALTERED, index, "the record is not the logged one")]
        try:
            readers = {
                _BOOT: self._read_boot,
                _ATTESTATION: self._read_attestation,
                _REFUSAL: self._read_refusal,
            }
            return list(readers[_typ(record)](index, record, source))
        except EvidenceUnavailableError:
            raise
        except AttestError as error:
            return [Finding(Kind.INVALID, index, str(error))]

    def _read_boot(self, index: int, record: str, source: Source) -> Iterable[Finding]:
        token = tokens.parse(record, typ=_BOOT)
        check_claims(token.claims, _BOOT)
        given = Endorsements.from_json(
            read_object(_endorsements(source, token), max_bytes=_MAX_ENDORSEMENTS)
        )
        policy, at = self._policy, token.claims["iat"]
        manifest = open_manifest(
            given.manifest, policy.authorities, threshold=policy.threshold
        )
        manifest.check_validity(at)
        certified = certified_key(
            given.key_certificates,
            token.kid,
            manifest=manifest,
            authorities=policy.authorities,
            signed_at=at,
        )
        tokens.verify(token, certified.key)
        if not (
            token.claims["manifest"]["digest"] == manifest.digest
            and manifest.digest in certified.claims["manifests"]
        ):
            raise VerificationError("boot: the key is not certified for this manifest")
        if token.digest in self.chains:
            yield Finding(Kind.TWICE, index, "the boot was logged before")
            return
        yield from self._takes_over(index, token.claims.get("follows"))
        self.chains[token.digest] = Chain(certified.key, manifest.digest)
        self._trust(manifest)
        yield from self._posture_findings(index, token.claims, manifest)

    def _takes_over(
        self, index: int, follows: Mapping[str, Any] | None
    ) -> Iterable[Finding]:
        """Whether the key before this one made just the records that are here."""
        if follows is None:
            return
        before = self.chains.get(follows["boot"])
        made = follows["count"]
        if before is None:
            detail = f"boot {follows['boot']}, which this one follows, is missing"
            yield Finding(Kind.MISSING, index, detail)
        elif made != before.following:
            kind = Kind.MISSING if made > before.following else Kind.TWICE
            detail = (
                f"boot {follows['boot']} made {made} records, found {before.following}"
            )
            yield Finding(kind, index, detail)

    def _trust(self, manifest: Manifest) -> None:
        policy = self._policy
        logs = manifest.logs if policy.logs is None else policy.logs
        self._logs |= {str(key): key for key in logs}
        self._witnesses = (
            manifest.witnesses if policy.witnesses is None else policy.witnesses
        )

    def _posture_findings(
        self, index: int, claims: Mapping[str, Any], manifest: Manifest
    ) -> Iterable[Finding]:
        state = dict(claims["serving_state"])
        posture = {
            "manifest": manifest.digest,
            "weights": claims["weights"]["root"],
            "measured": claims["weights"]["measured"],
            "engine": dict(claims["engine"]),
            "software": dict(claims["software"]),
            "serving_state": state,
        }
        title = f"{manifest.model_name} {manifest.model_version}"
        yield Finding(Kind.BOOT, index, f"boot of {title}, serving {state['digest']}")
        if self._posture:
            changed = changes(self._posture, posture)
            if changed:
                yield Finding(Kind.POSTURE, index, "; ".join(changed))
        self._posture = posture

    def _read_attestation(
        self, index: int, record: str, _: Source
    ) -> Iterable[Finding]:
        token = tokens.parse(record, typ=_ATTESTATION)
        check_claims(token.claims, _ATTESTATION)
        claims = token.claims
        chain = self.chains.get(claims["boot"])
        if chain is None:
            raise VerificationError("the record names a boot that is not in the log")
        tokens.verify(token, chain.key)
        if claims["manifest"]["digest"] != chain.manifest:
            raise VerificationError("the record names another manifest than its boot")
        yield from _follow(chain, index, token)
        prompt = claims["system_prompt"]
        if prompt not in chain.prompts:
            detail = f"first {prompt} system prompt of boot {claims['boot']}"
            yield Finding(Kind.SYSTEM_PROMPT, index, detail)
        chain.prompts[prompt] = chain.prompts.get(prompt, 0) + 1

    def _read_refusal(
        self, index: int, record: str, source: Source
    ) -> Iterable[Finding]:
        token = tokens.parse(record, typ=_REFUSAL)
        given = _endorsements(source, token)
        value = read_object(given, max_bytes=_MAX_ENDORSEMENTS)
        if value.get("refusal") != record:
            raise VerificationError("the refusal at hand is not the logged one")
        # Judged as of its own time: an auditor comes later.
        at = token.claims.get("iat")
        verdict = verify_refusal(given, self._policy, at=at if type(at) is int else 0)
        verdict.raise_unless_proven()
        yield Finding(
            Kind.REFUSED, index, f"{token.claims['code']}: {token.claims['reason']}"
        )

    def accept(self, text: bytes) -> list[Finding]:
        """Take the head that covers all that was read; it then is `head`.

        A head that does not fit is no head: the one before it stays.
        """
        logs = self._logs.values() if self._policy.logs is None else self._policy.logs
        try:
            head, note, _ = open_checkpoint(text, logs)
            found = cosignatures(note, self._witnesses)
        except (FormatError, VerificationError) as error:
            return [Finding(Kind.HEAD, None, str(error))]
        problem = self._contradiction(head)
        if problem is not None:
            return [problem]
        self.head = head
        self.cosigned = (len(found), len({key.key for key in self._witnesses}))
        return []

    def shrunk(self, head: Checkpoint) -> Finding | None:
        """Whether the log now shows less, or another log, than it did before."""
        if self.head is None:
            return None
        if head.origin != self.head.origin:
            detail = f"it was {self.head.origin}, and now says that it is {head.origin}"
            return Finding(Kind.FORKED, None, detail)
        if head.size < self.size:
            detail = f"{head.size} entries, where {self.size} were seen before"
            return Finding(Kind.SHRUNK, None, detail)
        return None

    def _contradiction(self, head: Checkpoint) -> Finding | None:
        root = self._frontier.root()
        if (head.size, head.root) == (self.size, root):
            return None
        signed, seen = (base64.b64encode(item).decode() for item in (head.root, root))
        return Finding(
            Kind.FORKED,
            None,
            f"the log signed root {signed} for {head.size} entries; the entries that "
            f"were seen have root {seen}",
        )

    def to_json(self) -> dict[str, Any]:
        """All that a later reading needs; `from_json` goes on from it."""
        return {
            "head": None if self.head is None else str(self.head),
            "frontier": base64.b64encode(self._frontier.serialise()).decode(),
            "logs": sorted(self._logs),
            "witnesses": list(map(str, self._witnesses)),
            "chains": {name: chain.to_json() for name, chain in self.chains.items()},
            "posture": self._posture,
            "alarms": [alarm.to_json() for alarm in self.alarms],
        }

    @classmethod
    def from_json(cls, policy: Policy, value: Mapping[str, Any]) -> "Auditor":
        """Go on from an earlier reading.

        Raises:
            FormatError: not what `to_json` wrote.
        """
        auditor = cls(policy)
        try:
            if value["head"] is not None:
                auditor.head = Checkpoint.parse(value["head"])
            auditor._frontier = Frontier.restore(base64.b64decode(value["frontier"]))
            auditor._logs = {text: NoteKey.parse(text) for text in value["logs"]}
            auditor._witnesses = tuple(map(NoteKey.parse, value["witnesses"]))
            auditor.chains = {
                name: Chain.from_json(item) for name, item in value["chains"].items()
            }
            auditor._posture = dict(value["posture"])
            auditor.alarms = [
                Finding(Kind(item["kind"]), item["index"], str(item["detail"]))
                for item in value["alarms"]
            ]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError("audit: not the state of an earlier reading") from error
        return auditor


def _typ(record: str) -> str:
    header = read_object(b64url_decode(record.partition(".")[0]), max_bytes=1024)
    typ = header.get("typ")
    if typ not in {_BOOT, _ATTESTATION, _REFUSAL}:
        raise FormatError("the record is of no kind that belongs into a log")
    return str(typ)


def _follow(chain: Chain, index: int, token: Token) -> Iterable[Finding]:
    """Check that a record is the next of its boot, and go on after it."""
    seq, prev = token.claims["seq"], token.claims["prev"]
    boot = token.claims["boot"]
    if seq < chain.following:
        detail = f"a second record {seq} of boot {boot}"
        yield Finding(Kind.TWICE, index, detail)
        return
    if seq > chain.following:
        last = seq - 1
        names = (
            f"record {last} is"
            if last == chain.following
            else (f"records {chain.following} to {last} are")
        )
        yield Finding(Kind.MISSING, index, f"{names} missing from boot {boot}")
    elif prev != chain.prev:
        detail = f"record {seq} of boot {boot} follows one that is not in the log"
        yield Finding(Kind.TWICE, index, detail)
    chain.following, chain.prev = seq + 1, token.digest


def _endorsements(source: Source, token: Token) -> bytes:
    return source.get(f"endorsements/{token.digest.removeprefix('sha256:')}")
