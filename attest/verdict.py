"""What a verification found: for people, for programs and as an exception."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from attest.errors import (
    AlgorithmError,
    AttestError,
    ContentOnlyError,
    EvidenceUnavailableError,
    ExpiredError,
    PolicyError,
    SignatureError,
    TranscriptMismatchError,
    VerificationError,
)
from attest.manifest import Manifest
from attest.policy import Tier
from attest.steps import Status, Step

__all__ = ["Verdict"]


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
        """No step failed or was left unknown, and the bytes are the attested ones."""
        return not any(step.status in _BAD for step in self.steps)

    @property
    def false(self) -> bool:
        """A definite no."""
        return any(step.status is Status.FAILED for step in self.steps)

    @property
    def content_only(self) -> bool:
        """All is proven but that the bytes at hand are the attested ones.

        What they say is what was attested; their spelling is another.
        """
        problem = self.problem
        return problem is not None and problem.status is Status.CONTENT_ONLY

    @property
    def problem(self) -> Step | None:
        """The step that kept it from being proven, the gravest if there are two."""
        found = [step for step in self.steps if step.status in _BAD]
        return min(found, key=lambda step: _BAD.index(step.status), default=None)

    def step(self, number: int) -> Step | None:
        """The line of one step, None when it was not reached."""
        return next((step for step in self.steps if step.number == number), None)

    def raise_unless_proven(self) -> None:
        """Raise when the answer is not proven.

        Raises:
            VerificationError: a definite no; of the class that the step's code names,
                where that is a definite no by itself. ContentOnlyError says that the
                content is proven and the bytes are not.
            EvidenceUnavailableError: cannot tell.
        """
        problem = self.problem
        if problem is None:
            return
        kind: type[AttestError] = EvidenceUnavailableError
        if problem.status is not Status.UNKNOWN:
            kind = _DEFINITE.get(problem.code, VerificationError)
        raise kind(
            f"step {problem.number} {problem.name}: {problem.detail}",
            hint="the bundle and `attest verify bundle` show every step",
            findings=problem.findings,
        )

    def to_json(self) -> dict[str, Any]:
        """The verdict for machines."""
        problem = self.problem
        return {
            "verdict": "proven" if problem is None else _WORDS[problem.status],
            "tier": str(self.tier),
            "measured": self.claims.get("weights", {}).get("measured"),
            "steps": [
                {
                    "step": step.number,
                    "name": step.name,
                    "status": str(step.status),
                    "detail": step.detail,
                    "code": step.code,
                    "reasons": [item.to_json() for item in step.findings],
                }
                for step in self.steps
            ],
            "claims": dict(self.claims),
            "disclosed": dict(self.disclosed),
        }


# Gravest first.
_BAD = (Status.FAILED, Status.UNKNOWN, Status.CONTENT_ONLY)
_WORDS: Mapping[Status, str] = {
    Status.FAILED: "false",
    Status.UNKNOWN: "unknown",
    Status.CONTENT_ONLY: "content_only",
}
_DEFINITE: Mapping[str, type[VerificationError]] = {
    kind.code: kind
    for kind in (
        AlgorithmError,
        ContentOnlyError,
        ExpiredError,
        PolicyError,
        SignatureError,
        TranscriptMismatchError,
    )
}
