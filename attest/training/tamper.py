"""Training that looks ahead: a principle's loss after a simulated attack on it.

First-order form of tamper-resistant training (TAR, Tamirisa et al., arXiv 2408.00761;
first order after Finn et al., arXiv 1703.03400): take a few steps of fine-tuning
against the principle on all weights, take the gradient of the principle's own loss
there, put the weights back, and add that gradient to the step's.

What it buys is for `attest.training.resistance` to say: against the attacks of a suite,
for one model. An attacker who trains otherwise was not looked ahead to.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from attest.errors import TrainingError
from attest.training.batches import Example, Sampler, collate
from attest.training.ledger import float_hex
from attest.training.router import NonFiniteError

__all__ = ["Attacks", "Tamper"]


@dataclass(frozen=True, slots=True)
class Attacks:
    """The simulated attacks.

    Attributes:
        steps: of fine-tuning, on `rows` rows each. Every weight moves by the rate
            against the sign of its gradient, which is what Adam's first step does.
        least, most: the rate of an attack is drawn between them, evenly in its
            logarithm.
        weight: of the gradient after the attack beside the step's own.
        start: the share of the stage after which attacks begin; before that there is
            little to defend.
    """

    steps: int = 4
    least: float = 2e-4
    most: float = 1e-3
    rows: int = 8
    weight: float = 1.0
    start: float = 0.25


class Tamper:
    """Adds the gradient after a simulated attack to that of a step.

    Costs `steps` + 1 forward and backward passes per call, the gradient of every weight
    and a copy of all weights.
    """

    def __init__(
        self,
        model: nn.Module,
        contrary: Mapping[str, Sequence[Example]],
        *,
        seed: int,
        attacks: Attacks | None = None,
    ) -> None:
        """Prepare; `contrary` has, by principle, rows that teach against it.

        Raises:
            TrainingError: a principle with an empty list of rows.
        """
        if empty := [name for name, rows in contrary.items() if not rows]:
            raise TrainingError(f"principle {empty[0]!r}: no rows teach against it")
        self.attacks = attacks or Attacks()
        self._model = model
        self._parameters = list(model.parameters())
        self._random = torch.Generator().manual_seed(seed)
        rows = [
            Example(row.id, name, row.prompt, row.answer)
            for name, rows in contrary.items()
            for row in rows
        ]
        self._sampler = Sampler(rows, seed=seed)

    def due(self, principle: str, *, step: int, steps: int) -> bool:
        """Whether a step for this principle is to look ahead."""
        known = principle in self._sampler.principles
        return known and step >= self.attacks.start * steps

    def add_gradient(self, principle: str, own: Sequence[Example]) -> dict[str, Any]:
        """Attack, add the gradient on the rows `own`, put every weight back.

        It is added to the tensors that need a gradient now, so a router's route holds
        for it. Returns what the ledger's record says of it: ids of the rows that the
        attack used, its rate, and the loss on `own` after it, as hex of binary32.

        Raises:
            NonFiniteError: the loss after the attack is; the weights are as before.
        """
        attacks, pad = self.attacks, int(self._model.config.pad_token_id)
        rate = self._rate()
        used: list[str] = []
        with self._restored():
            for _ in range(attacks.steps):
                drawn = self._sampler.draw({principle: attacks.rows})
                used += [row.id for row in drawn]
                self._step(collate(drawn, pad=pad).tensors, rate)
            loss = self._model(**collate(own, pad=pad).tensors).loss
            if not torch.isfinite(loss):
                raise NonFiniteError(
                    f"simulated attack on {principle!r} at rate {rate:g}: the loss "
                    f"after it is {loss.item()}",
                    hint="lower the highest rate of the attacks",
                )
            (attacks.weight * loss).backward()
        return {
            "tamper": {
                "samples": used,
                "rate": float_hex(rate),
                "loss": float_hex(loss.item()),
            }
        }

    def state_dict(self) -> dict[str, Any]:
        """Random state and decks; tensors, texts and numbers alone."""
        return {
            "random": self._random.get_state(),
            "sampler": self._sampler.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`.

        Raises:
            TrainingError: the state was taken with other rows.
        """
        self._random.set_state(state["random"])
        self._sampler.load_state_dict(state["sampler"])

    def _rate(self) -> float:
        low, high = math.log(self.attacks.least), math.log(self.attacks.most)
        drawn = float(torch.rand((), generator=self._random))
        return math.exp(low + (high - low) * drawn)

    def _step(self, tensors: dict[str, torch.Tensor], rate: float) -> None:
        needed = [p.requires_grad for p in self._parameters]
        for parameter in self._parameters:
            parameter.requires_grad_(True)
        loss = self._model(**tensors).loss
        gradients = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        with torch.no_grad():
            for parameter, gradient in zip(self._parameters, gradients, strict=True):
                if gradient is not None:
                    parameter.sub_(gradient.sign(), alpha=rate)
        for parameter, need in zip(self._parameters, needed, strict=True):
            parameter.requires_grad_(need)

    @contextmanager
    def _restored(self) -> Iterator[None]:
        """Whatever happens within, the weights are bit for bit as before afterwards."""
        before = [p.detach().clone() for p in self._parameters]
        needed = [p.requires_grad for p in self._parameters]
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, old in zip(self._parameters, before, strict=True):
                    parameter.copy_(old)
            for parameter, need in zip(self._parameters, needed, strict=True):
                parameter.requires_grad_(need)
