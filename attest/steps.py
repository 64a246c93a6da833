"""A verification in numbered steps: each is a line of the verdict.

A step is a function that returns one line, or raises. Nothing runs after a step that
failed or that is unknown.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from attest.errors import (
    AttestError,
    ContentOnlyError,
    EvidenceUnavailableError,
    UnsupportedVersionError,
)
from attest.reasons import Finding

__all__ = ["NotChecked", "Passed", "Status", "Step", "run_steps"]


class Status(StrEnum):
    """What became of one step."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"
    NOT_CHECKED = "not checked"
    CONTENT_ONLY = "content only"


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the verdict.

    Attributes:
        code: class of the error when the status is failed, unknown or content only,
            else "".
        findings: why the step is not simply passed, by the codes of `attest.reasons`;
            a step that is ok may have some too.
    """

    number: int
    name: str
    status: Status
    detail: str
    code: str = ""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Passed:
    """A step that is ok, and of which something must be said."""

    detail: str
    findings: tuple[Finding, ...] = field(default=())


class NotChecked(Exception):  # noqa: N818  # an outcome of a step, not an error
    """A step that has nothing to look at, and the reason for that."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.findings = (Finding(reason, message),)


# Errors that leave the question open; every other AttestError is a definite no, since
# evidence that breaks its form proves nothing and never will.
_CANNOT_TELL = (EvidenceUnavailableError, UnsupportedVersionError)


Check = Callable[[], str | Passed]


def run_steps(checks: Iterable[tuple[str, Check]]) -> tuple[Step, ...]:
    """The lines of some checks, numbered from 0, up to the first failed or unknown."""
    steps: list[Step] = []
    for number, (name, check) in enumerate(checks):
        steps.append(_run_step(number, name, check))
        if steps[-1].status in {Status.FAILED, Status.UNKNOWN}:
            break
    return tuple(steps)


def _run_step(number: int, name: str, check: Check) -> Step:
    try:
        found = check()
    except NotChecked as reason:
        status = Status.NOT_CHECKED
        return Step(number, name, status, str(reason), findings=reason.findings)
    except AttestError as error:
        reasons = error.findings or (Finding(f"{name}.{error.code}", str(error)),)
        return Step(number, name, _status(error), str(error), error.code, reasons)
    if isinstance(found, str):
        return Step(number, name, Status.OK, found)
    return Step(number, name, Status.OK, found.detail, findings=found.findings)


def _status(error: AttestError) -> Status:
    if isinstance(error, ContentOnlyError):
        return Status.CONTENT_ONLY
    return Status.UNKNOWN if isinstance(error, _CANNOT_TELL) else Status.FAILED
