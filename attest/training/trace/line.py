"""A model moved along the straight line from its parent's weights to its own."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from attest.training.batches import Example, collate

__all__ = ["Line", "Tensors"]

Tensors = dict[str, torch.Tensor]

# A nudge along a delta, as a fraction of it: large against the rounding of float32 log
# likelihoods, small against the bends of the line.
_NUDGE = 0.01


class Line:
    """The line, and what an answer's likelihood does on it.

    Between its calls the model has its own weights, bit for bit.

    Args:
        model: as it is after training, with all it changes in float32; in `eval()`.
        parent: float32 tensors as they were before, of those that differ.
    """

    def __init__(self, model: nn.Module, parent: Mapping[str, torch.Tensor]) -> None:
        self._model, self._parent = model, parent
        self._parameters = dict(model.named_parameters())
        self._device = next(model.parameters()).device

    def ends(self, examples: Sequence[Example]) -> list[tuple[float, float]]:
        """Log-likelihood of each answer under the parent and under the model."""
        batch = self._batch(examples)
        with torch.no_grad(), self._moving() as move:
            found = []
            for place in (0.0, 1.0):
                move(place)
                found.append(self._token_logs(batch).sum(-1).tolist())
        return list(zip(*found, strict=True))

    def gradient(self, example: Example, *, points: int) -> Tensors:
        """The gradient of an answer's log-likelihood, averaged over the line.

        Gauss-Legendre quadrature: exact for a polynomial of degree 2 points.
        """
        batch = self._batch([example])
        total = {name: torch.zeros_like(t) for name, t in self._parent.items()}
        with self._moving() as move:
            for place, weight in _quadrature(points):
                move(place)
                for name, gradient in self._gradient(batch).items():
                    total[name] += weight * gradient
        return total

    def gradients(
        self, examples: Sequence[Example], *, place: float
    ) -> Iterator[Tensors]:
        """The gradient of each answer's log-likelihood at one place of the line."""
        with self._moving() as move:
            move(place)
            for example in examples:
                yield self._gradient(self._batch([example]))

    def token_shares(
        self,
        example: Example,
        directions: Sequence[Mapping[str, torch.Tensor]],
        *,
        points: int,
    ) -> list[list[float]]:
        """For each direction, what it gave to each token of the answer, in nats.

        Directional derivatives, averaged over the line, by central differences.
        """
        batch = self._batch([example])
        answered = batch["labels"][0, 1:] >= 0
        shares = []
        with torch.no_grad(), self._moving() as move:
            for direction in directions:
                total = torch.zeros(int(answered.sum()), dtype=torch.float64)
                for place, weight in _quadrature(points):
                    ends = []
                    for nudge in (-_NUDGE, _NUDGE):
                        move(place, direction, nudge)
                        logs = self._token_logs(batch)[0, answered].cpu().double()
                        ends.append(logs)
                    total += weight * (ends[1] - ends[0]) / (2 * _NUDGE)
                shares.append(total.tolist())
        return shares

    @contextmanager
    def _moving(self) -> Iterator[Callable[..., None]]:
        """Gives what puts the weights at a place, 0 to 1, nudged along a direction."""
        kept = {n: self._parameters[n].detach().clone() for n in self._parent}
        wanted = {n: p.requires_grad for n, p in self._parameters.items()}

        def move(
            place: float,
            direction: Mapping[str, torch.Tensor] | None = None,
            nudge: float = 0.0,
        ) -> None:
            with torch.no_grad():
                for name, start in self._parent.items():
                    value = start + place * (kept[name] - start)
                    if direction is not None and name in direction:
                        value += nudge * direction[name].to(value.device)
                    self._parameters[name].copy_(value)

        try:
            for name, parameter in self._parameters.items():
                parameter.requires_grad_(name in self._parent)
            yield move
        finally:
            with torch.no_grad():
                for name, parameter in self._parameters.items():
                    parameter.requires_grad_(wanted[name])
                    parameter.grad = None
                    if name in kept:
                        parameter.copy_(kept[name])

    def _gradient(self, batch: Mapping[str, torch.Tensor]) -> Tensors:
        self._token_logs(batch).sum().backward()
        found = {}
        for name in self._parent:
            parameter = self._parameters[name]
            grad = parameter.grad
            found[name] = torch.zeros_like(parameter) if grad is None else grad
            parameter.grad = None
        return found

    def _token_logs(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Log-likelihood of each label; zero where there is none."""
        labels = batch["labels"][:, 1:]
        logits = self._model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).logits[:, :-1]
        logs = logits.float().log_softmax(-1)
        taken = logs.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        return taken * (labels >= 0)

    def _batch(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        # Padding is masked and has no label: any id does.
        tensors = collate(examples, pad=0).tensors
        return {name: tensor.to(self._device) for name, tensor in tensors.items()}


def _quadrature(points: int) -> list[tuple[float, float]]:
    nodes, weights = np.polynomial.legendre.leggauss(points)
    return [
        (float(node + 1) / 2, float(weight) / 2)
        for node, weight in zip(nodes, weights, strict=True)
    ]
