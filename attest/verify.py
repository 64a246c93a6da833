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
    10 policy     tier, measurement, outcome, system prompt and overrides suffice

A step is `ok`, `failed`, `unknown` (evidence is missing that the policy needs) or `not
checked`, with the reason. Nothing after a failed step is looked at.
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
from attest.claims import Measured, Outcome, check_claims, check_salted
from attest.delivery import split_stream
from attest.digests import digest, digests_equal, parse_digest
from attest.errors import (
    AlgorithmError,
    AttestError,
    EvidenceUnavailableError,
    ExpiredError,
    PolicyError,
    SignatureError,
    TranscriptMismatchError,
    VerificationError,
)
from attest.keys import PublicKey
from attest.manifest import Manifest, open_manifest
from attest.policy import Policy, Tier
from attest.standing import Moments, check_standing
from attest.steps import NotChecked, Status, Step, run_steps
from attest.tokens import Token
from attest.transparency import check_log, named_logs

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


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was proven, and what was not.

    Attributes:
        tier: the highest tier reached; T0 when any step failed.
        claims: the token's claims, trustworthy only when `proven`.
        disclosed: claims that the disclosures proved.
        manifest: the manifest, once step 1 has passed.
    """

    tier: Tier
    steps: tuple[Step, ...]
    claims: Mapping[str, Any] = field(default_factory=dict)
    disclosed: Mapping[str, Any] = field(default_factory=dict)
    manifest: Manifest | None = None

    @property
    def proven(self) -> bool:
        """No step failed and none was left unknown."""
        bad = {Status.FAILED, Status.UNKNOWN}
        return not any(step.status in bad for step in self.steps)

    @property
    def false(self) -> bool:
        """A definite no."""
        return any(step.status is Status.FAILED for step in self.steps)

    @property
    def problem(self) -> Step | None:
        """The step that kept it from being proven."""
        bad = {Status.FAILED, Status.UNKNOWN}
        return next((step for step in self.steps if step.status in bad), None)

    def step(self, number: int) -> Step | None:
        """The line of one step, None when it was not reached."""
        return next((step for step in self.steps if step.number == number), None)

    def raise_unless_proven(self) -> None:
        """Raise when the answer is not proven.

        Raises:
            VerificationError: a definite no; of the class that the step's code names,
                where that is a definite no by itself.
            EvidenceUnavailableError: cannot tell.
        """
        problem = self.problem
        if problem is None:
            return
        kind: type[AttestError] = EvidenceUnavailableError
        if self.false:
            kind = _DEFINITE.get(problem.code, VerificationError)
        raise kind(
            f"step {problem.number} {problem.name}: {problem.detail}",
            hint="the bundle and `attest verify bundle` show every step",
        )

    def to_json(self) -> dict[str, Any]:
        """The verdict for machines."""
        return {
            "verdict": "proven"
            if self.proven
            else "false"
            if self.false
            else "unknown",
            "tier": str(self.tier),
            "measured": self.claims.get("weights", {}).get("measured"),
            "steps": [
                {
                    "step": step.number,
                    "name": step.name,
                    "status": str(step.status),
                    "detail": step.detail,
                    "code": step.code,
                }
                for step in self.steps
            ],
            "claims": dict(self.claims),
            "disclosed": dict(self.disclosed),
        }


_DEFINITE: Mapping[str, type[VerificationError]] = {
    kind.code: kind
    for kind in (
        AlgorithmError,
        ExpiredError,
        PolicyError,
        SignatureError,
        TranscriptMismatchError,
    )
}


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
        tokens.verify(self.boot, self.key)
        check_claims(self.boot.claims, typ)
        engine = self.boot.claims["engine"]
        return f"{engine['name']} {engine['version']}, dtype {engine['dtype']}"

    def token_signature(self) -> str:
        tokens.verify(self.token, self.key)
        return f"{self.token.alg} by {self.key.thumbprint}"

    def agreement(self) -> str:
        token, boot, manifest = self.claims, self.boot.claims, self.sure_manifest
        runtime, engine = manifest.runtime, boot["engine"]
        measured, at_boot = (
            Measured(claims["weights"]["measured"]) for claims in (token, boot)
        )
        rules = {
            "token names another boot record": token["boot"] == self.boot.digest,
            "token names another manifest": token["manifest"]["digest"]
            == boot["manifest"]["digest"]
            == manifest.digest,
            "key is not certified for this manifest": manifest.digest
            in self.certified.claims["manifests"],
            "token is of another gateway": token["iss"]
            == boot["iss"]
            == self.certified.claims["sub"],
            "weights root differs from the manifest": token["weights"]["root"]
            == boot["weights"]["root"]
            == manifest.tensor_root,
            "token claims a stronger measurement than the boot record": measured.rank
            <= at_boot.rank,
            "token states another constitution": token["constitution"]
            == manifest.constitution,
            "engine is not allowed by the manifest": engine["name"] in runtime.engines,
            "dtype is not allowed by the manifest": engine["dtype"] in runtime.dtypes
            # Not seen, which only a measurement in the engine could have.
            or (engine["dtype"] == "unknown" and at_boot is not Measured.ENGINE),
            "token is older than its boot record": boot["iat"]
            <= self.iat + MAX_SKEW_SECONDS,
        }
        for problem, holds in rules.items():
            if not holds:
                raise VerificationError(problem)
        self.tier = Tier.T1
        return f"weights {manifest.tensor_root}, measured by {measured}"

    def content(self) -> str:
        bundle, result = self.bundle, self.claims["res"]
        checked = []
        if bundle.request is not None:
            committed = self.disclosed.get("request.digest")
            if committed is None:
                raise EvidenceUnavailableError(
                    "content: the request digest was not disclosed"
                )
            if not digests_equal(digest(bundle.request), committed):
                raise TranscriptMismatchError("the request is not the attested one")
            checked.append("request")
        found = self._response_digest()
        if found is not None:
            if not digests_equal(found, result["content_digest"]):
                raise TranscriptMismatchError(
                    "the response is not the attested one of "
                    f"{result['content_bytes']} bytes",
                    hint="it was changed after the gateway signed it",
                )
            checked.append("response")
        if not checked:
            raise NotChecked("neither request nor response was given")
        return " and ".join(checked) + " match byte for byte"

    def _response_digest(self) -> str | None:
        response = self.bundle.response
        if response is None:
            return self.bundle.response_digest
        if self.claims["res"]["stream"]:
            response, _ = split_stream(response)
        return digest(response)

    def freshness(self) -> str:
        claims, notes = self.claims, []
        if self.iat > self.at + MAX_SKEW_SECONDS:
            raise ExpiredError("token: signed in the future of this clock")
        if self.nonce is not None:
            if claims.get("eat_nonce") != self.nonce:
                raise TranscriptMismatchError("the nonce is not the one that was sent")
            notes.append("nonce matches")
        else:
            notes.append("no nonce was given, so a replay would not be noticed")
        if self.audience is not None:
            if claims.get("aud") != self.audience:
                raise TranscriptMismatchError("the token is for another audience")
            notes.append("audience matches")
        return "; ".join([*notes, f"signed {max(0, self.at - self.iat)} s ago"])

    def log(self) -> str:
        proof, trust = self.bundle.log, (self.sure_manifest, self.policy)
        if proof is None:
            raise NotChecked("the bundle holds no log proof")
        if not named_logs(*trust):
            raise NotChecked("neither manifest nor policy names the key of a log")
        leaf = parse_digest(self.token.digest)
        found = check_log(proof, leaf, signed_at=self.iat, at=self.at, trust=trust)
        self.logged_at = found.logged_at
        if found.witnessed:
            self.tier = Tier.T2
        return found.detail

    def status(self) -> str:
        return check_standing(
            self.bundle.status_lists,
            self.sure_manifest,
            self.certified,
            policy=self.policy,
            moments=Moments(self.iat, self.logged_at, self.at),
        )

    def demands(self) -> str:
        policy, claims = self.policy, self.claims
        measured = Measured(claims["weights"]["measured"])
        outcome = Outcome(claims["res"]["outcome"])
        marked = claims.get("overrides", ())
        rules = {
            f"tier {self.tier}, at least {policy.min_tier} is demanded": (
                self.tier.rank >= policy.min_tier.rank
            ),
            f"weights measured by {measured}, at least {policy.min_measured} is "
            "demanded": measured.rank >= policy.min_measured.rank,
            f"outcome {outcome}, accepted: {', '.join(sorted(policy.outcomes))}": (
                outcome in policy.outcomes
            ),
            f"system prompt {claims['system_prompt']}, accepted: "
            f"{', '.join(sorted(policy.system_prompts))}": (
                claims["system_prompt"] in policy.system_prompts
            ),
            f"overrides {', '.join(map(repr, marked))}: not all are accepted": (
                policy.overrides is None or policy.overrides.issuperset(marked)
            ),
            f"older than {policy.max_age_seconds} s": policy.max_age_seconds is None
            or self.at - self.iat <= policy.max_age_seconds,
        }
        for problem, holds in rules.items():
            if not holds:
                raise PolicyError(problem)
        return f"tier {self.tier}, measured by {measured}, outcome {outcome}"


_STEPS: tuple[tuple[str, Callable[[_Run], str]], ...] = (
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
