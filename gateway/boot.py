"""What one start of the gateway states and signs: session key, boot record, refusal.

Pure: values and a clock reading in, signed documents out.
"""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from attest import tokens
from attest.canonical import canonical
from attest.claims import EAT_PROFILE, Measured
from attest.digests import digest
from attest.errors import AttestError
from attest.keys import PrivateKey, PublicKey, Signer
from attest.manifest import Manifest
from attest.recall import MAX_ENTRIES, Reference
from attest.verify import issuer_uri

__all__ = [
    "Boot",
    "Session",
    "Verified",
    "WeightsReport",
    "boot_record",
    "certify",
    "follow",
    "open_boot",
    "refusal",
    "session_key",
]

# Well under the seven days that verifiers accept, so that an unattended gateway that is
# restarted weekly never serves with a key that has run out.
CERTIFICATE_SECONDS = 6 * 24 * 3600
# A verifier's clock may be a little behind ours.
BACKDATE_SECONDS = 60
# A token has to fit a header; the log has the whole reason.
_MAX_REASON = 200


@dataclass(frozen=True, slots=True)
class Session:
    """A key that lives in this process alone, and the certificate that vouches for it.

    `gateway_id` is whom the certificate vouches for, and so the `iss` of all it signs.
    """

    key: PrivateKey
    certificate: str
    gateway_id: str


@dataclass(frozen=True, slots=True)
class WeightsReport:
    """What was found out about the weights, by whom and when.

    Attributes:
        protection: what keeps the checked files as they were, None without files.
        stale: {since, reason} once something changed after `verified_at`.
    """

    root: str
    count: int
    measured: Measured
    verified_at: int
    protection: str | None = None
    stale: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Verified:
    """What a start found out; whoever answers states it in a boot record.

    Attributes:
        manifest: what the engine was compared with.
        envelope: the signed bytes that the manifest was read from.
        weights: the outcome for the weights.
        evidence: as `boot_record` takes it.
    """

    manifest: Manifest
    envelope: bytes
    weights: WeightsReport
    evidence: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Boot:
    """Everything that the attestations of one start refer to.

    Attributes:
        digest: how attestations name this boot: digest of the record's signing input.
        claims: what each of its attestations says of it, in the clear.
    """

    session: Session
    manifest: Manifest
    envelope: bytes
    weights: WeightsReport
    record: str
    digest: str = field(init=False)
    claims: Mapping[str, Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Derive what is not given."""
        object.__setattr__(self, "digest", tokens.signing_digest(self.record))
        object.__setattr__(self, "claims", self._claims())

    def _claims(self) -> dict[str, Any]:
        weights = self.weights
        claims = {
            "iss": self.session.gateway_id,
            "eat_profile": EAT_PROFILE,
            "boot": self.digest,
            "manifest": {"digest": self.manifest.digest},
            "constitution": self.manifest.constitution,
            "weights": {
                "root": weights.root,
                "measured": str(weights.measured),
                "verified_at": weights.verified_at,
            },
        }
        return claims if weights.stale is None else {**claims, "stale": weights.stale}

    def verified(self, at: int) -> "Boot":
        """The same boot after a look that found all as it was."""
        return replace(self, weights=replace(self.weights, verified_at=at))

    def stale(self, since: int, reason: str) -> "Boot":
        """The same boot after a change: nothing is claimed to be measured any more."""
        weights = replace(
            self.weights,
            measured=Measured.ASSERTED,
            stale={"since": since, "reason": reason[:_MAX_REASON]},
        )
        return replace(self, weights=weights)

    def endorsements(self) -> bytes:
        """What a client needs besides the token, as the JSON of the well-known path."""
        value = {
            "profile": EAT_PROFILE,
            "issuer": self.session.gateway_id,
            "bootRecord": self.record,
            "keyCertificates": [self.session.certificate],
            "manifest": json.loads(self.envelope),
        }
        return json.dumps(value).encode()


def _id(prefix: str) -> str:
    return prefix + secrets.token_urlsafe(16)


def certify(
    signer: Signer,
    gateway_id: str,
    manifest: Manifest | None,
    *,
    now: int,
    status_uri: str = "",
) -> Session:
    """A fresh session key, certified by `signer` for one manifest.

    Without a manifest the key is certified for none, so it can sign refusals only. It
    has the signer's algorithm: a site that may only use P-256 uses nothing else.

    Args:
        signer: the key that certifies.
        gateway_id: whom the certificate vouches for.
        manifest: what the key may speak for.
        now: seconds since the epoch.
        status_uri: status list in which the key gets an entry, by chance: with 300
            keys, two share one in 4 of 100 lists, and are then revoked together.

    Raises:
        SignerError: the key store can't sign.
    """
    key = PrivateKey.generate(signer.public.alg)
    claims = {
        "iss": issuer_uri(signer.public),
        "sub": gateway_id,
        "jti": _id("key_"),
        "iat": now,
        "nbf": now - BACKDATE_SECONDS,
        "exp": now + CERTIFICATE_SECONDS,
        "cnf": {"jwk": key.public.jwk},
        "manifests": [] if manifest is None else [manifest.digest],
    }
    if status_uri:
        place = Reference(status_uri, secrets.randbelow(MAX_ENTRIES))
        claims["status"] = place.to_json()
    certificate = tokens.mint("gateway-key+jwt", claims, signer)
    return Session(key, certificate, gateway_id)


def boot_record(
    session: Session,
    *,
    manifest: Manifest,
    weights: WeightsReport,
    evidence: Mapping[str, Any],
    now: int,
) -> str:
    """The signed boot record.

    Args:
        session: the session key that signs.
        manifest: what the weights were checked against.
        weights: the outcome of that check.
        evidence: {engine: {name, version, dtype, …}, serving_state: the resolved
            settings as the engine reported them, software: name to version}, and
            canary and live_weights where there are any.
        now: seconds since the epoch.
    """
    state = evidence["serving_state"]
    protection = weights.protection
    claims = {
        "iss": session.gateway_id,
        "iat": now,
        "jti": _id("boot_"),
        "eat_profile": EAT_PROFILE,
        "manifest": {"digest": manifest.digest},
        "weights": {
            "root": weights.root,
            "count": weights.count,
            "measured": str(weights.measured),
            "verified_at": weights.verified_at,
            **({} if protection is None else {"protection": str(protection)}),
        },
        "engine": evidence["engine"],
        "serving_state": {"digest": digest(canonical(state)), **state},
        "software": evidence["software"],
    }
    for name in ("canary", "live_weights"):
        if name in evidence:
            claims[name] = evidence[name]
    return tokens.mint("eat+jwt", claims, session.key)


def open_boot(
    verified: Verified,
    signer: Signer,
    gateway_id: str,
    *,
    now: int,
    status_uri: str = "",
) -> Boot:
    """A boot under a fresh session key; the arguments are those of `certify`.

    Raises:
        SignerError: the key store can't sign.
    """
    manifest, weights = verified.manifest, verified.weights
    session = certify(signer, gateway_id, manifest, now=now, status_uri=status_uri)
    record = boot_record(
        session,
        manifest=manifest,
        weights=weights,
        evidence=verified.evidence,
        now=now,
    )
    return Boot(session, manifest, verified.envelope, weights, record)


def follow(boot: Boot, session: Session, *, count: int, now: int) -> Boot:
    """The same boot under the next session key: its record, stated and signed anew.

    Args:
        boot: what was verified at the start, or had become stale since.
        session: the key that takes over.
        count: how many attestations the key before it made.
        now: seconds since the epoch.
    """
    claims = dict(tokens.parse(boot.record, typ="eat+jwt").claims)
    weights = {
        **claims["weights"],
        "measured": str(boot.weights.measured),
        "verified_at": boot.weights.verified_at,
    }
    claims |= {
        "iat": now,
        "jti": _id("boot_"),
        "weights": weights,
        "follows": {"boot": boot.digest, "count": count},
    }
    record = tokens.mint("eat+jwt", claims, session.key)
    return replace(boot, session=session, record=record)


def session_key(certificate: str) -> tuple[PublicKey, int]:
    """The key of a certificate that this gateway made, and when it runs out.

    Raises:
        FormatError: it is no certificate. Its signature is NOT checked.
    """
    claims = tokens.parse(certificate, typ="gateway-key+jwt").claims
    return PublicKey.from_jwk(claims["cnf"]["jwk"]), claims["exp"]


def refusal(
    session: Session,
    *,
    manifest: Manifest | None,
    error: AttestError,
    now: int,
) -> dict[str, Any]:
    """The signed record that a start was refused, as a JSON object for a file.

    Errors carry names, digests and paths, never content, so their text may be shown.
    """
    claims = {
        "iss": session.gateway_id,
        "iat": now,
        "jti": _id("ref_"),
        "eat_profile": EAT_PROFILE,
        "manifest": None if manifest is None else {"digest": manifest.digest},
        "code": error.code,
        "reason": str(error),
    }
    return {
        "refusal": tokens.mint("startup-refusal+jwt", claims, session.key),
        "keyCertificate": session.certificate,
    }
