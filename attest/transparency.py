"""Whether a statement stands in a log that witnesses watch, by a policy.

A log proof makes the operator accountable: with enough cosignatures the statement can't
be taken back, shown to one and hidden from another, or dated before it was made.
"""

from dataclasses import dataclass

from attest.certificates import MAX_SKEW_SECONDS
from attest.errors import EvidenceUnavailableError, ExpiredError, VerificationError
from attest.log.proof import Logged, LogProof, majority
from attest.manifest import Manifest
from attest.policy import Policy

__all__ = ["Transparency", "check_log", "named_logs"]


@dataclass(frozen=True, slots=True)
class Transparency:
    """What a verified log proof adds.

    Attributes:
        shortfall: why it does not reach tier T2, by its code in `attest.reasons`; ""
            where it does.
        logged_at: when enough witnesses had seen it, None where too few did.
    """

    shortfall: str
    detail: str
    logged_at: int | None


def named_logs(manifest: Manifest, policy: Policy) -> bool:
    """Whether there is a log whose proofs can be judged."""
    return bool(manifest.logs if policy.logs is None else policy.logs)


def check_log(
    proof: LogProof,
    leaf: bytes,
    *,
    signed_at: int,
    at: int,
    trust: tuple[Manifest, Policy],
) -> Transparency:
    """Judge a log proof. The policy's logs and witnesses stand above the manifest's.

    Args:
        proof: from the bundle.
        leaf: SHA-256 of the statement's signing input.
        signed_at: the statement's own `iat`.
        at: the verifier's clock.
        trust: the verified manifest and the policy.

    Raises:
        EvidenceUnavailableError: neither names a log.
        FormatError, SignatureError, VerificationError: the proof does not hold, or
            witnesses saw the statement before it says that it was signed.
        ExpiredError: it was cosigned in the future of this clock.
    """
    manifest, policy = trust
    if not named_logs(manifest, policy):
        raise EvidenceUnavailableError("log: neither manifest nor policy names a log")
    found = proof.verify(
        leaf,
        logs=manifest.logs if policy.logs is None else policy.logs,
        witnesses=manifest.witnesses if policy.witnesses is None else policy.witnesses,
    )
    times = [item.at for item in found.cosignatures]
    if times and signed_at > times[0] + MAX_SKEW_SECONDS:
        raise VerificationError(
            f"log: a witness saw the token {signed_at - times[0]} s before it says it "
            "was signed",
            reason="log.back_dated",
        )
    if times and times[-1] > at + MAX_SKEW_SECONDS:
        raise ExpiredError(
            "log: cosigned in the future of this clock", reason="log.future"
        )
    head = found.checkpoint
    where = f"entry {proof.index} of {head.size} in {head.origin}"
    return _witnessed(found, policy, signed_at, where)


def _witnessed(
    found: Logged, policy: Policy, signed_at: int, where: str
) -> Transparency:
    needed = policy.witness_threshold or majority(found.witness_count)
    times = [item.at for item in found.cosignatures]
    count = f"{where}; {len(times)} of {found.witness_count} witnesses cosigned"
    if len(times) < needed:
        few = f"{count}, {needed} must for tier T2"
        return Transparency("log.unwitnessed", few, None)
    logged_at = times[needed - 1]
    delay = max(0, logged_at - signed_at)
    if delay > policy.max_log_delay_seconds:
        late = f"{count}, but {delay} s after iat: it could be back-dated"
        return Transparency("log.late", late, logged_at)
    return Transparency("", f"{count}, within {delay} s", logged_at)
