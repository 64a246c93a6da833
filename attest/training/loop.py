"""Training stages that write a ledger: unrouted and governed."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from attest.errors import TrainingError
from attest.training.batches import Batch, Example, Sampler, collate
from attest.training.constitution import Constitution
from attest.training.ledger import Ledger, float_hex
from attest.training.observer import StepObserver, watched
from attest.training.router import MakeOptimizer, Router, StepOutcome
from attest.training.routing import Schedule, anchor_counts

__all__ = ["Plan", "Progress", "Trainer", "adamw"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast a stage trains.

    Attributes:
        rows: rows per batch that belong to the step's own principle; in the base stage
            the whole batch.
        lr: the highest rate; it rises over the first steps and falls to a tenth.
    """

    name: str
    steps: int
    rows: int
    lr: float

    def rate(self, step: int) -> float:
        """The learning rate of a step: linear warm-up, then a cosine."""
        warm_up = max(1, self.steps // 20)
        if step < warm_up:
            return self.lr * (step + 1) / warm_up
        done = (step - warm_up) / max(1, self.steps - warm_up)
        return self.lr * (0.55 + 0.45 * math.cos(math.pi * done))


def adamw(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW as every stage here uses it; the rate is set at each step."""
    return torch.optim.AdamW(parameters, betas=(0.9, 0.95), weight_decay=0.01)


class Trainer:
    """Runs stages on one model and writes every optimizer step to one ledger.

    A stage that raises leaves model and ledger as they were before the failing step.
    """

    def __init__(
        self,
        model: nn.Module,
        ledger: Ledger,
        *,
        progress: Progress,
        make_optimizer: MakeOptimizer = adamw,
        observers: Sequence[StepObserver] = (),
    ) -> None:
        self._model, self._ledger = model, ledger
        self._progress, self._make_optimizer = progress, make_optimizer
        self._observers = observers

    def unrouted(self, plan: Plan, sampler: Sampler) -> None:
        """Train all tensors on rows of all principles alike.

        Raises:
            TrainingError: the loss is not finite.
        """
        parameters = [p for p in self._model.parameters() if p.requires_grad]
        optimizer = self._make_optimizer(parameters)
        names = sampler.principles
        share = dict.fromkeys(names, max(1, plan.rows // len(names)))
        for step in range(plan.steps):
            batch = self._collate(sampler.draw(share))
            loss = _loss(self._model, batch)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(parameters, 1.0).item()
            if not math.isfinite(norm):
                raise TrainingError(
                    f"{plan.name}: the gradient of step {step} is not finite",
                    hint="lower the learning rate; the model is as before this step",
                )
            for group in optimizer.param_groups:
                group["lr"] = plan.rate(step)
            with watched(self._observers, None) as notes:
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            clip = min(1.0, 1.0 / (norm + 1e-6))
            outcome = StepOutcome(clip, {}, None, notes)
            record = _record(plan, step, batch=batch, loss=loss.item(), outcome=outcome)
            self._log(plan, step, {**record, "principle": None}, sampler)

    def governed(
        self,
        plan: Plan,
        sampler: Sampler,
        *,
        constitution: Constitution,
        schedule: Schedule,
    ) -> None:
        """Train one principle per step, in its band only, with anchors of the others.

        Raises:
            TrainingError: a principle without rows, a loss that is not finite, or a
                tensor outside a band changed.
        """
        router = Router(
            self._model, schedule, self._make_optimizer, observers=self._observers
        )
        turn: list[str] = []
        for step in range(plan.steps):
            turn = turn or sampler.order(tuple(schedule.routes))
            principle = constitution.principle(turn.pop())
            counts = {principle.id: plan.rows, **anchor_counts(principle, constitution)}
            batch = self._collate(sampler.draw(counts))
            with router.route(principle.id):
                loss = _loss(self._model, batch)
                loss.backward()
                outcome = router.step(plan.rate(step))
            record = _record(plan, step, batch=batch, loss=loss.item(), outcome=outcome)
            route = schedule.route(principle.id).digest
            record |= {"principle": principle.id, "route": route}
            self._log(plan, step, record, sampler)

    def _collate(self, examples: list[Example]) -> Batch:
        return collate(examples, pad=int(self._model.config.pad_token_id))

    def _log(
        self, plan: Plan, step: int, record: dict[str, Any], sampler: Sampler
    ) -> None:
        self._ledger.append({**record, "sampler": sampler.state_digest()})
        self._progress(plan.name, step + 1, plan.steps)


def _loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    loss: torch.Tensor = model(**batch.tensors).loss
    if not torch.isfinite(loss):
        raise TrainingError(
            f"the loss of rows {batch.examples[0].id} and {len(batch.examples) - 1} "
            f"more is {loss.item()}",
            hint="lower the learning rate or look at these rows; the model and the "
            "ledger are as before this step",
        )
    return loss


def _record(
    plan: Plan, step: int, *, batch: Batch, loss: float, outcome: StepOutcome
) -> dict[str, Any]:
    record: dict[str, Any] = {
        "kind": "step",
        "stage": plan.name,
        "step": step,
        "samples": [example.id for example in batch.examples],
        "principles": [example.principle for example in batch.examples],
        "batch": batch.digest,
        "lr": float_hex(plan.rate(step)),
        "loss": float_hex(loss),
        "clip": float_hex(outcome.clip),
    }
    if outcome.energy:
        record["energy"] = {k: float_hex(v) for k, v in sorted(outcome.energy.items())}
    if outcome.frozen is not None:
        record["frozen"] = outcome.frozen
    return record | outcome.notes
