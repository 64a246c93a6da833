"""What holds for every verdict, and short forms of what one says."""

from attest.reasons import REASONS
from attest.steps import Status
from attest.verdict import Verdict

__all__ = ["codes", "sound"]

_STATUS = {
    Status.OK: "note",
    Status.FAILED: "failed",
    Status.UNKNOWN: "unknown",
    Status.NOT_CHECKED: "not checked",
}


def sound(verdict: Verdict) -> Verdict:
    """The verdict, when every step says why it is not simply passed, by listed codes.

    A step has the status of the gravest of its reasons.
    """
    for step in verdict.steps:
        reasons = [REASONS[finding.code] for finding in step.findings]
        assert all(code.code.startswith(f"{step.name}.") for code in reasons)
        statuses = {reason.status for reason in reasons}
        if step.status is Status.CONTENT_ONLY:
            assert statuses == {"content only"}
        elif step.status is Status.FAILED:
            assert "failed" in statuses
            assert statuses <= {"failed", "content only"}
        elif step.status is Status.OK:
            assert statuses <= {"note"}
        else:
            assert statuses == {_STATUS[step.status]}
        assert bool(step.code) == (step.status not in (Status.OK, Status.NOT_CHECKED))
    return verdict


def codes(verdict: Verdict) -> set[str]:
    """Every code of every step."""
    return {finding.code for step in verdict.steps for finding in step.findings}
