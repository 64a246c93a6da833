"""Key certificates: who vouches for the session key that signed something.

The training authority does, or a delegate that its manifest names. A certificate lasts
seven days at most, which bounds the damage of a stolen session key.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attest import tokens
from attest.claims import check_claims
from attest.errors import EvidenceUnavailableError, ExpiredError, SignatureError
from attest.keys import PublicKey
from attest.manifest import Manifest
from attest.tokens import Token

__all__ = [
    "MAX_CERTIFICATE_SECONDS",
    "MAX_SKEW_SECONDS",
    "Certified",
    "certified_key",
    "issuer_uri",
]

# Clocks of gateway and verifier may differ by this much (RFC 7519 §4.1.4 leeway).
MAX_SKEW_SECONDS = 60
MAX_CERTIFICATE_SECONDS = 7 * 24 * 3600
_TYP = "gateway-key+jwt"


@dataclass(frozen=True, slots=True)
class Certified:
    """A session key, the claims of its certificate, and the key that certified it."""

    key: PublicKey
    claims: Mapping[str, Any]
    issuer: PublicKey


def issuer_uri(key: PublicKey) -> str:
    """How a certificate names the key that issued it (RFC 9278)."""
    return f"urn:ietf:params:oauth:jwk-thumbprint:sha-256:{key.thumbprint}"


def certified_key(
    certificates: Iterable[str],
    kid: str,
    *,
    manifest: Manifest | None,
    authorities: Sequence[PublicKey],
    signed_at: int,
) -> Certified:
    """The certified session key whose thumbprint is `kid`.

    Whether the certificate names the manifest is NOT checked here.

    Args:
        certificates: compact certificates; others than that of `kid` are only parsed.
        kid: thumbprint that the signed document names.
        manifest: names the delegates; None if there is none, and then only the
            authorities can have certified.
        authorities: the training authorities that are trusted.
        signed_at: when the document was signed, in seconds since the epoch.

    Raises:
        SignatureError: no certificate for `kid`, or one by somebody who may not.
        ExpiredError: signed outside the certificate's period, or that is too long.
        FormatError, AlgorithmError: a certificate breaks the rules of its form.
        EvidenceUnavailableError: the issuer may be a delegate, but `manifest` is None.
    """
    for compact in certificates:
        certificate = tokens.parse(compact, typ=_TYP)
        check_claims(certificate.claims, _TYP)
        key = PublicKey.from_jwk(certificate.claims["cnf"]["jwk"])
        if key.thumbprint == kid:
            issuer = _issuer(certificate, manifest, authorities)
            _check_period(certificate.claims, signed_at)
            return Certified(key, certificate.claims, issuer)
    raise SignatureError(
        f"key: no certificate for {kid}",
        reason="key.uncertified",
        hint="the token was signed by a key that nobody vouches for",
    )


def _issuer(
    certificate: Token, manifest: Manifest | None, authorities: Sequence[PublicKey]
) -> PublicKey:
    issued_at = certificate.claims["iat"]
    delegates = () if manifest is None else manifest.issuers(issued_at)
    issuers = {key.thumbprint: key for key in (*delegates, *authorities)}
    issuer = issuers.get(certificate.kid)
    if issuer is None and manifest is None:
        raise EvidenceUnavailableError(
            f"key: issuer {certificate.kid} is no authority, and no manifest is at "
            "hand that could name it as a delegate"
        )
    if issuer is None:
        raise SignatureError(
            f"key: issuer {certificate.kid} is neither an authority nor a delegate "
            "that the manifest names",
            reason="key.issuer",
        )
    tokens.verify(certificate, issuer)
    if certificate.claims["iss"] != issuer_uri(issuer):
        raise SignatureError("key: iss is not the key that signed")
    return issuer


def _check_period(claims: Mapping[str, Any], signed_at: int) -> None:
    if not 0 < claims["exp"] - claims["nbf"] <= MAX_CERTIFICATE_SECONDS:
        raise ExpiredError("key: certified for longer than seven days")
    if not claims["nbf"] - MAX_SKEW_SECONDS <= signed_at <= claims["exp"]:
        raise ExpiredError("key: the token was signed outside the key's period")
