"""One stage of training, step by step: it can be stopped and taken up again."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from attest.training.batches import Batch, Sampler, collate
from attest.training.constitution import Constitution
from attest.training.observer import StepObserver, watched
from attest.training.record import Fed, step_record
from attest.training.router import MakeOptimizer, NonFiniteError, Router, StepOutcome
from attest.training.routing import anchor_counts
from attest.training.tamper import Tamper

__all__ = ["GovernedStage", "Plan", "Stage", "UnroutedStage", "adamw"]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast a stage trains.

    Attributes:
        rows: rows per batch that belong to the step's own principle; in an unrouted
            stage the whole batch.
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


class Stage(ABC):
    """A stage under way.

    Attributes:
        plan: how long and how fast.
        done: how many steps were made.
    """

    def __init__(self, model: nn.Module, plan: Plan, sampler: Sampler) -> None:
        self.plan, self.done = plan, 0
        self._model, self._sampler = model, sampler

    @abstractmethod
    def advance(self) -> dict[str, Any]:
        """Make one optimizer step and return its record for the ledger.

        Raises:
            NonFiniteError: a loss or gradient is not finite; the model is as before.
            TrainingError: as the sampler and the router raise it.
        """

    def finish(self) -> dict[str, Any] | None:
        """What is left to say in the ledger after the last step, if anything."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Position, optimizers and sampler; no weights.

        Holds tensors, texts and numbers alone, so `torch.load(weights_only=True)` reads
        it. The random state of dropout is the caller's.
        """
        return {"done": self.done, "sampler": self._sampler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`; the model has its weights of then already.

        Raises:
            TrainingError: the state does not fit the rows, the schedule or the weights.
        """
        self._sampler.load_state_dict(state["sampler"])
        self.done = int(state["done"])

    def _draw(self, counts: Mapping[str, int]) -> Batch:
        pad = int(self._model.config.pad_token_id)
        return collate(self._sampler.draw(counts), pad=pad)

    def _loss(self, batch: Batch) -> torch.Tensor:
        loss: torch.Tensor = self._model(**batch.tensors).loss
        if not torch.isfinite(loss):
            raise NonFiniteError(
                f"the loss of rows {batch.examples[0].id} and "
                f"{len(batch.examples) - 1} more is {loss.item()}",
                hint="lower the learning rate or look at these rows; the model and the "
                "ledger are as before this step",
            )
        return loss

    def _place(self) -> dict[str, Any]:
        return {
            "stage": self.plan.name,
            "step": self.done,
            "sampler": self._sampler.state_digest(),
        }


class UnroutedStage(Stage):
    """Trains all tensors that need a gradient on rows of all principles alike."""

    def __init__(
        self,
        model: nn.Module,
        plan: Plan,
        sampler: Sampler,
        *,
        optimizer: MakeOptimizer,
        observers: Sequence[StepObserver] = (),
    ) -> None:
        super().__init__(model, plan, sampler)
        self._observers = observers
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._optimizer = optimizer(self._parameters)

    def advance(self) -> dict[str, Any]:
        """As `Stage.advance`."""
        names, rate = self._sampler.principles, self.plan.rate(self.done)
        batch = self._draw(dict.fromkeys(names, max(1, self.plan.rows // len(names))))
        loss = self._loss(batch)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self._parameters, 1.0).item()
        if not math.isfinite(norm):
            self._optimizer.zero_grad(set_to_none=True)
            raise NonFiniteError(
                f"{self.plan.name}: the gradient of step {self.done} is not finite",
                hint="lower the learning rate; the model is as before this step",
            )
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        with watched(self._observers, None) as notes:
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        outcome = StepOutcome(min(1.0, 1.0 / (norm + 1e-6)), {}, None, 0, notes)
        record = step_record(
            self._place(), _fed(batch, loss), outcome, lr=rate, route=None
        )
        self.done += 1
        return record

    def state_dict(self) -> dict[str, Any]:
        """As `Stage.state_dict`."""
        return {**super().state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As `Stage.load_state_dict`; the weights are not checked."""
        super().load_state_dict(state)
        self._optimizer.load_state_dict(state["optimizer"])


class GovernedStage(Stage):
    """Trains one principle per step, in its band only, with anchors of the others.

    With `tamper`, steps also take the gradient after a simulated attack.
    """

    def __init__(  # noqa: PLR0913  # a stage, and three parts of governing it
        self,
        model: nn.Module,
        plan: Plan,
        sampler: Sampler,
        router: Router,
        *,
        constitution: Constitution,
        tamper: Tamper | None = None,
    ) -> None:
        super().__init__(model, plan, sampler)
        self._router, self._constitution = router, constitution
        self._tamper, self._hashed = tamper, True

    def advance(self) -> dict[str, Any]:
        """As `Stage.advance`."""
        rate = self.plan.rate(self.done)
        turn = self._sampler.turn(tuple(self._router.schedule.routes))
        principle = self._constitution.principle(turn)
        others = anchor_counts(principle, self._constitution)
        batch = self._draw({turn: self.plan.rows, **others})
        with self._router.route(turn):
            loss = self._loss(batch)
            loss.backward()
            ahead = self._look_ahead(turn, batch)
            outcome = self._router.step(rate)
        self._hashed = outcome.frozen is not None
        route = self._router.schedule.route(turn)
        record = step_record(
            self._place(), _fed(batch, loss), outcome, lr=rate, route=route
        )
        self.done += 1
        return record | {"mechanism": self._router.mechanism} | ahead

    def finish(self) -> dict[str, Any] | None:
        """As `Stage.finish`; a whole check, unless the last step was hashed.

        Raises:
            ConfinementError: a tensor outside all bands changed.
        """
        if self._hashed:
            return None
        return self._router.check_record({"stage": self.plan.name, "step": self.done})

    def state_dict(self) -> dict[str, Any]:
        """As `Stage.state_dict`."""
        ahead = {"tamper": self._tamper.state_dict()} if self._tamper else {}
        return {**super().state_dict(), "router": self._router.state_dict(), **ahead}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As `Stage.load_state_dict`; the weights are checked by digest."""
        super().load_state_dict(state)
        self._router.load_state_dict(state["router"])
        if self._tamper:
            self._tamper.load_state_dict(state["tamper"])

    def _look_ahead(self, principle: str, batch: Batch) -> dict[str, Any]:
        plan, tamper = self.plan, self._tamper
        if not tamper or not tamper.due(principle, step=self.done, steps=plan.steps):
            return {}
        own = [row for row in batch.examples if row.principle == principle]
        return tamper.add_gradient(principle, own)


def _fed(batch: Batch, loss: torch.Tensor) -> Fed:
    return Fed(
        [example.id for example in batch.examples],
        [example.principle for example in batch.examples],
        batch.digest,
        loss.item(),
    )
