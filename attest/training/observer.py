"""What may watch a training run: the two moments around each optimizer step."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

__all__ = ["Notes", "StepObserver", "watched"]

Notes = dict[str, Any]


class StepObserver(Protocol):
    """Called around every optimizer step, in the thread that trains.

    An observer leaves parameters, their `.grad`, their `requires_grad`, the random
    state and the model's mode as it found them. Whatever it raises stops the run before
    the step is logged.
    """

    def before(self, principle: str | None) -> None:
        """The step is about to be applied; None stands for an unrouted step."""

    def after(self, principle: str | None) -> Mapping[str, Any]:
        """The step was applied; returns members for its record in the ledger."""


@contextmanager
def watched(
    observers: Sequence[StepObserver], principle: str | None
) -> Iterator[Notes]:
    """Around one step: fills what it yields with the notes of all observers.

    When the step raises, `after` is not called.
    """
    for observer in observers:
        observer.before(principle)
    notes: Notes = {}
    yield notes
    for observer in observers:
        notes |= observer.after(principle)
