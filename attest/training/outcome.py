"""What became of an optimizer step."""

from dataclasses import dataclass, field

from attest.errors import TrainingError
from attest.training.observer import Notes

__all__ = ["NonFiniteError", "StepOutcome"]


class NonFiniteError(TrainingError):
    """A loss or a gradient is not a number; the model is as before the step."""

    code = "non_finite"


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What one optimizer step did.

    Attributes:
        clip: the factor by which the gradient was shortened; 1.0 for not at all.
        energy: sum of squares of the applied update, per unit of the route.
        frozen: joint digest of all tensors outside the route, which were hashed before
            and after the step; None when this step was guarded by checksums.
        guarded: how many tensors outside the route had the same checksum before and
            after; 0 when they were hashed.
        notes: what observers have to say in the ledger's record of this step.
    """

    clip: float
    energy: dict[str, float]
    frozen: str | None
    guarded: int = 0
    notes: Notes = field(default_factory=dict)
