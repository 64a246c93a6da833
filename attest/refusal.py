"""Startup refusals: the signed word of a gateway that would not serve.

A record is {"refusal": token, "keyCertificate": token or null, "manifest": envelope or
null}. It proves that a certified gateway refused, and which reason it gave. It does not
prove the reason, nor that nobody started another gateway afterwards.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from attest import tokens
from attest.canonical import read_object
from attest.certificates import MAX_SKEW_SECONDS, Certified, certified_key
from attest.claims import check_claims
from attest.envelope import MAX_ENVELOPE
from attest.errors import (
    EvidenceUnavailableError,
    ExpiredError,
    FormatError,
    VerificationError,
)
from attest.keys import PublicKey
from attest.manifest import Manifest, open_manifest
from attest.policy import Policy, Tier
from attest.tokens import Token
from attest.verify import NotChecked, Status, Verdict, run_steps

__all__ = ["MAX_RECORD", "Refusal", "read_refusal", "verify_refusal"]

MAX_RECORD = MAX_ENVELOPE + 64 * 1024
_TYP = "startup-refusal+jwt"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A record whose outer form was read. Nothing in it has been verified."""

    token: str
    key_certificate: str | None
    manifest: bytes | None


def read_refusal(data: bytes) -> Refusal:
    """Read a refusal record.

    Raises:
        FormatError: not a record, too large, or a member of the wrong type.
    """
    match read_object(data, max_bytes=MAX_RECORD):
        case {"refusal": str(token), **rest}:
            certificate, manifest = rest.get("keyCertificate"), rest.get("manifest")
            if isinstance(certificate, str | None) and isinstance(
                manifest, dict | None
            ):
                envelope = None if manifest is None else json.dumps(manifest).encode()
                return Refusal(token, certificate, envelope)
    raise FormatError("refusal: expected refusal, keyCertificate and manifest")


def verify_refusal(data: bytes, policy: Policy, *, at: int) -> Verdict:
    """Judge a refusal record.

    Of the policy only the authorities and their threshold count. An expired manifest is
    no fault here: it may be the very reason for the refusal.

    Args:
        data: the record, a JSON file.
        policy: names the trusted authorities.
        at: the verifier's clock, in seconds since the epoch, UTC.

    Returns:
        A verdict with a line for each step that was reached, T1 when all are passed.
    """
    run = _Run(data, policy, at)
    steps = run_steps(
        [
            ("form", run.form),
            ("manifest", run.manifest_signature),
            ("key", run.key_certificate),
            ("signature", run.signature),
            ("agreement", run.agreement),
            ("freshness", run.freshness),
        ]
    )
    passed = steps[-1].status is Status.OK
    return Verdict(
        tier=Tier.T1 if passed else Tier.T0,
        steps=steps,
        claims=run.token.claims if steps[0].status is Status.OK else {},
        manifest=run.manifest,
    )


@dataclass(slots=True)
class _Run:
    data: bytes
    policy: Policy
    at: int
    record: Refusal = field(init=False)
    token: Token = field(init=False)
    manifest: Manifest | None = None
    certified: Certified = field(init=False)

    @property
    def authorities(self) -> Sequence[PublicKey]:
        return self.policy.authorities

    @property
    def claims(self) -> Mapping[str, Any]:
        return self.token.claims

    def form(self) -> str:
        self.record = read_refusal(self.data)
        self.token = tokens.parse(self.record.token, typ=_TYP)
        unknown = check_claims(self.claims, _TYP)
        note = f"; unknown claims ignored: {', '.join(unknown)}" if unknown else ""
        return "well-formed" + note

    def manifest_signature(self) -> str:
        if self.record.manifest is None:
            raise NotChecked("the record holds no manifest", "manifest.not_given")
        manifest = open_manifest(
            self.record.manifest, self.authorities, threshold=self.policy.threshold
        )
        self.manifest = manifest
        return (
            f"{manifest.model_name} {manifest.model_version}, signed by "
            f"{', '.join(manifest.signed_by)}"
        )

    def key_certificate(self) -> str:
        if self.record.key_certificate is None:
            raise EvidenceUnavailableError("key: the record holds no key certificate")
        self.certified = certified_key(
            [self.record.key_certificate],
            self.token.kid,
            manifest=self.manifest,
            authorities=self.authorities,
            signed_at=self.claims["iat"],
        )
        issuer = self.certified.issuer.thumbprint
        return f"key {self.token.kid} certified by {issuer}"

    def signature(self) -> str:
        tokens.verify(self.token, self.certified.key)
        return f"{self.token.alg} by {self.certified.key.thumbprint}"

    def agreement(self) -> str:
        stated = self.claims["manifest"]
        found = None if self.manifest is None else self.manifest.digest
        if (None if stated is None else stated["digest"]) != found:
            raise VerificationError(
                "refusal names another manifest", reason="agreement.manifest"
            )
        if found is not None and found not in self.certified.claims["manifests"]:
            raise VerificationError(
                "key is not certified for this manifest",
                reason="agreement.key_manifest",
            )
        if self.claims["iss"] != self.certified.claims["sub"]:
            raise VerificationError(
                "refusal is of another gateway", reason="agreement.gateway"
            )
        code, reason = self.claims["code"], self.claims["reason"]
        return f"{self.claims['iss']} refused, {code}: {reason}"

    def freshness(self) -> str:
        age = self.at - self.claims["iat"]
        if age < -MAX_SKEW_SECONDS:
            raise ExpiredError(
                "refusal: signed in the future of this clock",
                reason="freshness.future",
            )
        return f"signed {max(0, age)} s ago"
