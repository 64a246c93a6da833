"""The verifier: one bundle, one policy, one clock reading in; a verdict out.

It opens no file and no socket. The steps, in the order in which they run; each relies
on those before it:

    0 form        the token is strictly well-formed
    1 manifest    enough trusted authorities signed the manifest, and it was valid
    2 key         an authority, or a delegate in the manifest, certified the session key
    3 boot        the session key signed the boot record
    4 signature   the session key signed the token, with the algorithm bound to it
    5 agreement   token, boot record, certificate, manifest and weights say the same
    6 content     request and response at hand are the attested ones
    7 freshness   nonce, audience and time
    8 log         the token is in a witnessed log
    9 status      key and manifest were not revoked when it was signed
    10 policy     the policy's demands are met

A step is `ok`, `failed`, `unknown` (evidence is missing that the policy needs), `not
checked`, or `content only` (step 6: the answer is proven, the bytes at hand are not the
attested ones), with the reasons of `attest.reasons`. Nothing after a failed or unknown
step is looked at.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from attest import disclosures, tokens
from attest.bundle import Bundle
from attest.certificates import (
    MAX_SKEW_SECONDS,
    Certified,
    certified_key,
    issuer_uri,
)
from attest.claims import Measured, check_claims, check_salted
from attest.content import check_content
from attest.demands import check_demands
from attest.digests import parse_digest
from attest.errors import (
    AttestError,
    ExpiredError,
    SignatureError,
    TranscriptMismatchError,
    VerificationError,
)
from attest.keys import PublicKey
from attest.manifest import Manifest, open_manifest
from attest.policy import Policy, Tier
from attest.reasons import REASONS, Finding
from attest.standing import Moments, check_standing
from attest.steps import NotChecked, Passed, Status, Step, run_steps
from attest.tokens import Token
from attest.transparency import check_log, named_logs
from attest.verdict import Verdict

__all__ = [
    "MAX_SKEW_SECONDS",
    "NotChecked",
    "Status",
    "Step",
    "Verdict",
    "issuer_uri",
    "run_steps",
    "verify",
]


@dataclass(slots=True)
class _Run:
    """State of one verification: what earlier steps established for later ones."""

    bundle: Bundle
    policy: Policy
    at: int
    nonce: str | None
    audience: str | None
    token: Token = field(init=False)
    disclosed: dict[str, Any] = field(default_factory=dict)
    manifest: Manifest | None = None
    certified: Certified = field(init=False)
    logged_at: int | None = None
    key: PublicKey = field(init=False)
    boot: Token = field(init=False)
    tier: Tier = Tier.T0

    @property
    def claims(self) -> Mapping[str, Any]:
        return self.token.claims

    @property
    def iat(self) -> int:
        iat: int = self.claims["iat"]
        return iat

    @property
    def sure_manifest(self) -> Manifest:
        assert self.manifest is not None  # noqa: S101  # step 1 passed or we are not here
        return self.manifest

    def form(self) -> str:
        compact, given = disclosures.split(self.bundle.token)
        typ = "inference-attestation+jwt"
        self.token = tokens.parse(compact, typ=typ)
        unknown = check_claims(self.claims, typ)
        self.disclosed = disclosures.reveal(self.claims, given)
        check_salted(self.disclosed)
        # Nothing is signed yet: a name must not forge a line of a log, or fill it.
        names = ", ".join(f"{name!a:.40}" for name in unknown[:8])
        note = f"; unknown claims ignored: {names}" if unknown else ""
        return f"well-formed, {len(given)} disclosures{note}"

    def manifest_signature(self) -> str:
        manifest = open_manifest(
            self.bundle.manifest,
            self.policy.authorities,
            threshold=self.policy.threshold,
        )
        manifest.check_validity(self.iat)
        self.manifest = manifest
        return (
            f"{manifest.model_name} {manifest.model_version}, signed by "
            f"{', '.join(manifest.signed_by)}"
        )

    def key_certificate(self) -> str:
        authorities = self.policy.authorities
        found = certified_key(
            self.bundle.key_certificates,
            self.token.kid,
            manifest=self.sure_manifest,
            authorities=authorities,
            signed_at=self.iat,
        )
        self.certified, self.key = found, found.key
        kind = "authority" if found.issuer in authorities else "delegate"
        issuer = found.issuer.thumbprint
        return f"key {found.key.thumbprint} certified by {kind} {issuer}"

    def boot_record(self) -> str:
        typ = "eat+jwt"
        self.boot = tokens.parse(self.bundle.boot_record, typ=typ)
        self._check_signer_of_boot()
        check_claims(self.boot.claims, typ)
        engine = self.boot.claims["engine"]
        return f"{engine['name']} {engine['version']}, dtype {engine['dtype']}"

    def _check_signer_of_boot(self) -> None:
        try:
            tokens.verify(self.boot, self.key)
        except SignatureError as error:
            if self.boot.kid != self.token.kid and self._is_of_a_sibling():
                raise SignatureError(
                    f"boot: signed by {self.boot.kid}, which is certified too",
                    hint="it is the boot record of another replica or start",
                    reason="boot.other_replica",
                ) from error
            raise

    def _is_of_a_sibling(self) -> bool:
        """Whether another certified key signed the boot record."""
        try:
            found = certified_key(
                self.bundle.key_certificates,
                self.boot.kid,
                manifest=self.sure_manifest,
                authorities=self.policy.authorities,
                signed_at=self.boot.claims.get("iat", self.iat),
            )
            tokens.verify(self.boot, found.key)
        except (AttestError, TypeError):
            return False
        return True

    def token_signature(self) -> str:
        tokens.verify(self.token, self.key)
        return f"{self.token.alg} by {self.key.thumbprint}"

    def agreement(self) -> str | Passed:
        token, boot, manifest = self.claims, self.boot.claims, self.sure_manifest
        runtime, engine = manifest.runtime, boot["engine"]
        measured, at_boot = (
            Measured(claims["weights"]["measured"]) for claims in (token, boot)
        )
        rules = {
            "boot": token["boot"] == self.boot.digest,
            "manifest": token["manifest"]["digest"]
            == boot["manifest"]["digest"]
            == manifest.digest,
            "key_manifest": manifest.digest in self.certified.claims["manifests"],
            "gateway": token["iss"] == boot["iss"] == self.certified.claims["sub"],
            "weights": token["weights"]["root"]
            == boot["weights"]["root"]
            == manifest.tensor_root,
            "measurement": measured.rank <= at_boot.rank,
            "constitution": token["constitution"] == manifest.constitution,
            "engine": engine["name"] in runtime.engines,
            "dtype": engine["dtype"] in runtime.dtypes
            # Not seen, which only a measurement in the engine could have.
            or (engine["dtype"] == "unknown" and at_boot is not Measured.ENGINE),
            "time": boot["iat"] <= self.iat + MAX_SKEW_SECONDS,
        }
        for word, holds in rules.items():
            if not holds:
                reason = f"agreement.{word}"
                raise VerificationError(REASONS[reason].meaning, reason=reason)
        self.tier = Tier.T1
        detail = f"weights {manifest.tensor_root}, measured by {measured}"
        # Names are labels, the root says what answered; but nobody should be misled.
        asked, answered = (
            token.get(f"gen_ai.{side}.model") for side in ("request", "response")
        )
        if None in (asked, answered) or asked == answered:
            return detail
        words = f"asked for {asked!a:.80}, {answered!a:.80} answered"
        return Passed(f"{detail}; {words}", (Finding("agreement.model", words),))

    def content(self) -> str:
        return check_content(self.bundle, self.claims, self.disclosed)

    def freshness(self) -> Passed:
        claims, notes = self.claims, []
        findings: tuple[Finding, ...] = ()
        if self.iat > self.at + MAX_SKEW_SECONDS:
            raise ExpiredError(
                "token: signed in the future of this clock", reason="freshness.future"
            )
        if self.nonce is not None:
            if claims.get("eat_nonce") != self.nonce:
                raise TranscriptMismatchError(
                    "the nonce is not the one that was sent", reason="freshness.nonce"
                )
            notes.append("nonce matches")
        else:
            notes.append("no nonce was given, so a replay would not be noticed")
            findings = (Finding("freshness.no_nonce", notes[-1]),)
        if self.audience is not None:
            if claims.get("aud") != self.audience:
                raise TranscriptMismatchError(
                    "the token is for another audience", reason="freshness.audience"
                )
            notes.append("audience matches")
        notes.append(f"signed {max(0, self.at - self.iat)} s ago")
        return Passed("; ".join(notes), findings)

    def log(self) -> Passed:
        proof, trust = self.bundle.log, (self.sure_manifest, self.policy)
        if proof is None:
            raise NotChecked("the bundle holds no log proof", "log.not_given")
        if not named_logs(*trust):
            raise NotChecked(
                "neither manifest nor policy names the key of a log", "log.unnamed"
            )
        leaf = parse_digest(self.token.digest)
        found = check_log(proof, leaf, signed_at=self.iat, at=self.at, trust=trust)
        self.logged_at = found.logged_at
        if found.shortfall:
            return Passed(found.detail, (Finding(found.shortfall, found.detail),))
        self.tier = Tier.T2
        return Passed(found.detail)

    def status(self) -> Passed:
        return check_standing(
            self.bundle.status_lists,
            self.sure_manifest,
            self.certified,
            policy=self.policy,
            moments=Moments(self.iat, self.logged_at, self.at),
        )

    def demands(self) -> str:
        return check_demands(
            self.policy, self.claims, self.sure_manifest, tier=self.tier, at=self.at
        )


_STEPS: tuple[tuple[str, Callable[[_Run], str | Passed]], ...] = (
    ("form", _Run.form),
    ("manifest", _Run.manifest_signature),
    ("key", _Run.key_certificate),
    ("boot", _Run.boot_record),
    ("signature", _Run.token_signature),
    ("agreement", _Run.agreement),
    ("content", _Run.content),
    ("freshness", _Run.freshness),
    ("log", _Run.log),
    ("status", _Run.status),
    ("policy", _Run.demands),
)


def verify(
    bundle: Bundle,
    policy: Policy,
    *,
    at: int,
    nonce: str | None = None,
    audience: str | None = None,
) -> Verdict:
    """Judge one bundle by one policy.

    Args:
        bundle: the evidence, and the content if it is at hand.
        policy: what the relying party demands.
        at: the verifier's clock, in seconds since the epoch, UTC.
        nonce: what was sent as Attestation-Nonce, if anything was.
        audience: what `aud` must be, if anything.

    Returns:
        A verdict with a line for each step that was reached. It never raises for bad
        evidence. Without content in the bundle it proves the record alone, and step 6
        says so.
    """
    run = _Run(bundle, policy, at, nonce, audience)
    steps = run_steps((name, partial(check, run)) for name, check in _STEPS)
    failed = steps[-1].status is Status.FAILED
    return Verdict(
        tier=Tier.T0 if failed else run.tier,
        steps=steps,
        claims=run.token.claims if steps[0].status is Status.OK else {},
        disclosed=run.disclosed,
        manifest=run.manifest,
    )
