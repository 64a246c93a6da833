"""The ledger's record of one optimizer step: the one place that makes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attest.training.ledger import float_hex
from attest.training.outcome import StepOutcome
from attest.training.routing import Route

__all__ = ["Fed", "step_record"]


@dataclass(frozen=True, slots=True)
class Fed:
    """What a step was made from.

    Attributes:
        samples: ids of the rows, in batch order; of this rank's rows where several
            ranks train.
        principles: the principle that each of them was made for.
        batch: digest of the tensors that the model was given.
        loss: the loss over all of them, as the gradient was taken of it.
    """

    samples: Sequence[str]
    principles: Sequence[str]
    batch: str
    loss: float


def step_record(
    place: Mapping[str, Any],
    fed: Fed,
    outcome: StepOutcome,
    *,
    lr: float,
    route: Route | None,
) -> dict[str, Any]:
    """The record; `place` says where in the run: `stage`, `step`, and what else counts.

    Without a route the step was unrouted. A step that was guarded by checksums has
    `guarded`, the number of tensors that were compared, in the place of `frozen`.
    Floats are hex of big-endian binary32.
    """
    record: dict[str, Any] = {
        "kind": "step",
        **place,
        "samples": list(fed.samples),
        "principles": list(fed.principles),
        "batch": fed.batch,
        "lr": float_hex(lr),
        "loss": float_hex(fed.loss),
        "clip": float_hex(outcome.clip),
        "principle": None if route is None else route.principle,
    }
    if route is not None:
        record["route"] = route.digest
        record["energy"] = {k: float_hex(v) for k, v in sorted(outcome.energy.items())}
        if outcome.frozen is not None:
            record["frozen"] = outcome.frozen
        else:
            record["guarded"] = outcome.guarded
    return record | outcome.notes
