"""A verification in numbered steps: each is a line of the verdict.

A step is a function that returns one line, or raises. Nothing runs after a step that
was not passed.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from attest.errors import (
    AttestError,
    EvidenceUnavailableError,
    UnsupportedVersionError,
)

__all__ = ["NotChecked", "Status", "Step", "run_steps"]


class Status(StrEnum):
    """What became of one step."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the verdict.

    Attributes:
        code: machine-readable reason when the status is failed or unknown, else "".
    """

    number: int
    name: str
    status: Status
    detail: str
    code: str = ""


class NotChecked(Exception):  # noqa: N818  # an outcome of a step, not an error
    """A step that has nothing to look at."""


# Errors that leave the question open; every other AttestError is a definite no, since
# evidence that breaks its form proves nothing and never will.
_CANNOT_TELL = (EvidenceUnavailableError, UnsupportedVersionError)


def run_steps(checks: Iterable[tuple[str, Callable[[], str]]]) -> tuple[Step, ...]:
    """The lines of some checks, numbered from 0, up to the first that is not passed."""
    steps: list[Step] = []
    for number, (name, check) in enumerate(checks):
        steps.append(_run_step(number, name, check))
        if steps[-1].status in {Status.FAILED, Status.UNKNOWN}:
            break
    return tuple(steps)


def _run_step(number: int, name: str, check: Callable[[], str]) -> Step:
    try:
        return Step(number, name, Status.OK, check())
    except NotChecked as reason:
        return Step(number, name, Status.NOT_CHECKED, str(reason))
    except _CANNOT_TELL as error:
        return Step(number, name, Status.UNKNOWN, str(error), error.code)
    except AttestError as error:
        return Step(number, name, Status.FAILED, str(error), error.code)
