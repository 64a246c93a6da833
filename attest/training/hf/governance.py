"""What a governed trainer is told besides what it is told anyway."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attest.training.constitution import Constitution
from attest.training.ledger import Ledger
from attest.training.mechanism import Mechanism
from attest.training.observer import StepObserver

__all__ = ["Governance"]


@dataclass(frozen=True, slots=True)
class Governance:
    """What governs a training stage.

    Attributes:
        constitution: whose principles the rows name.
        ledger: where the steps are written. A path is created by `train()`, or taken
            up again with `resume_from_checkpoint`, and closed at the end; an open
            ledger gets the records of this stage after those that it has.
        stage: the stage's name in the ledger.
        method: `sft`, `dpo`, `grpo`, `rloo`, or what else it should be called; None
            takes it from the trainer.
        grouped: whether every step is made of rows for one principle and its anchors.
            Otherwise the trainer's own sampler deals, every row trains the band of its
            own principle, and there are no anchors.
        check_every: as in `attest.training.router.Router`.
        observers: called around every optimizer step. Those that have `state_dict` and
            `load_state_dict` go on from a checkpoint; the others begin anew there.
        mechanism: as in `attest.training.router.Router`.
    """

    constitution: Constitution
    ledger: Path | Ledger
    stage: str = "governed"
    method: str | None = None
    grouped: bool = True
    check_every: int = 1
    observers: Sequence[StepObserver] = ()
    mechanism: Mechanism | None = None
