"""What a Trainer takes for its optimizer: a face for the optimizers of all routes."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from transformers import Trainer

from attest.errors import TrainingError
from attest.training.router import MakeOptimizer

__all__ = ["RoutedOptimizer", "optimizer_of_band"]

_STATE = "governance"


class RoutedOptimizer(torch.optim.Optimizer):
    """Holds the learning rate for the scheduler, and hands each step to the router.

    Its `state_dict` carries what `save` returns; `loaded` is what a checkpoint had.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        *,
        apply: Callable[[float], None],
        save: Callable[[], dict[str, Any] | None],
    ) -> None:
        super().__init__(list(parameters), {"lr": lr})
        self._apply, self._save = apply, save
        self.loaded: dict[str, Any] | None = None

    def step(self, closure: Any = None) -> None:
        """Make the step of the window that is open, at the scheduler's rate.

        Raises:
            TrainingError: with a closure, and as the router raises it.
        """
        if closure is not None:
            raise TrainingError("router: an optimizer step with a closure has no route")
        self._apply(float(self.param_groups[0]["lr"]))

    def state_dict(self) -> dict[str, Any]:
        """As of every optimizer, and the state of all routes beside it."""
        return {**super().state_dict(), _STATE: self._save()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the learning rate, and keep the state of all routes for the router."""
        state = dict(state_dict)
        self.loaded = state.pop(_STATE, None)
        super().load_state_dict(state)


def optimizer_of_band(trainer: Trainer) -> MakeOptimizer:
    """Makes what the trainer's arguments ask for, over the tensors of one band.

    Raises:
        TrainingError: an optimizer that needs the model or every tensor at once.
    """
    kind, options = trainer.optimizer_cls_and_kwargs or (
        trainer.get_optimizer_cls_and_kwargs(trainer.args, trainer.model)
    )
    if {"params", "model", "optimizer_dict"} & options.keys() or not isinstance(
        kind, type
    ):
        raise TrainingError(
            f"router: optim={trainer.args.optim!r} cannot be made for a band alone",
            hint="use one that takes a list of parameters, such as adamw_torch",
        )
    names = set(trainer.get_decay_parameter_names(trainer.model))
    decayed = {id(p) for n, p in trainer.model.named_parameters() if n in names}

    def make(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        groups = [
            {
                "params": [p for p in parameters if (id(p) in decayed) == decays],
                "weight_decay": trainer.args.weight_decay if decays else 0.0,
            }
            for decays in (True, False)
        ]
        return kind([group for group in groups if group["params"]], **options)

    return make
