"""From one answer to principles, layers and events, by gradients along a line.

Between the parent's weights and the model's, log p(answer | prompt) changes by the
integral of its gradient along the straight line. With the gradient averaged over the
line, every part of the change of weights has its share of the gain, and shares add up.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from attest.errors import ConfigurationError
from attest.training.batches import Example, collate
from attest.training.ledger import read_ledger
from attest.training.trace.record import Record, Track
from attest.training.trace.sketch import Sketcher
from attest.training.trace.values import EventScore, PrincipleShare, Trace

__all__ = ["Tracer", "ledger_events"]

_Tensors = dict[str, torch.Tensor]


def ledger_events(path: Path) -> list[dict[str, Any]]:
    """The ledger's records that carry a sketch, in order: one per observed step.

    Raises:
        LedgerError: as `read_ledger`.
    """
    return [record for record in read_ledger(path) if "sketch" in record]


class Tracer:
    """Traces answers of one model.

    The model is that after the last recorded step, in float32 and in `eval()`; its
    parameters change during a call and are restored bit for bit at its end.

    Args:
        events: what the ledger says about the steps, as `ledger_events` gives it.
        threshold: the least gain, in nats, that is put down to governed training.
    """

    def __init__(
        self,
        model: nn.Module,
        record: Record,
        events: Sequence[Mapping[str, Any]],
        *,
        threshold: float = 0.0,
        points: int = 4,
    ) -> None:
        self._model, self._record, self._events = model, record, events
        self._threshold, self._points = threshold, points
        self._parameters = dict(model.named_parameters())
        shapes = {name: tuple(p.shape) for name, p in self._parameters.items()}
        self._sketcher = Sketcher(shapes, side=record.side)
        self._parent = record.parent(self._parameters)
        steps = sum(len(track.steps) for track in record.tracks.values())
        if steps != len(events):
            raise ConfigurationError(
                f"trace: expected {steps} events with a sketch in the ledger, found "
                f"{len(events)}",
                hint="give ledger and trace of the same run",
            )

    def trace(self, example: Example, *, top: int = 10) -> Trace:
        """Trace one answer; `example.principle` is not looked at."""
        gain, gradient = self._line(example)
        shares = [
            self._share(principle, track, gradient)
            for principle, track in self._record.tracks.items()
        ]
        shares.sort(key=lambda share: -share.nats)
        events = self.rank(gradient) if gain >= self._threshold else []
        return Trace(len(example.answer), gain, self._threshold, shares, events[:top])

    def rank(self, gradient: Mapping[str, torch.Tensor]) -> list[EventScore]:
        """All events by their score, the highest first."""
        scores: list[EventScore] = []
        for principle, track in self._record.tracks.items():
            wanted = self._sketcher.sketch(gradient, track.names)
            rows = torch.stack(track.sketches).float() @ wanted
            found = (rows * torch.tensor(track.scales)).tolist()
            middle = median(found)
            spread = 1.4826 * median([abs(x - middle) for x in found]) or 1.0
            for step, score in zip(track.steps, found, strict=True):
                event = self._events[step]
                z = (score - middle) / spread
                samples = tuple(event["samples"])
                scores.append(EventScore(event["seq"], principle, score, z, samples))
        return sorted(scores, key=lambda event: -event.score)

    def _share(
        self, principle: str, track: Track, gradient: Mapping[str, torch.Tensor]
    ) -> PrincipleShare:
        layers: dict[str, float] = {}
        for name in sorted(track.names, key=list(self._record.units).index):
            unit = self._record.units[name]
            part = gradient[name].double() * track.deltas[name].double()
            layers[unit] = layers.get(unit, 0.0) + float(part.sum())
        return PrincipleShare(principle, sum(layers.values()), layers)

    def _line(self, example: Example) -> tuple[float, _Tensors]:
        """The gain, and the gradient averaged over the line by Gauss and Legendre."""
        batch = collate([example], pad=0)
        nodes, weights = np.polynomial.legendre.leggauss(self._points)
        total = {name: torch.zeros_like(t) for name, t in self._parent.items()}
        with self._moving() as move:
            for node, weight in zip(nodes, weights, strict=True):
                move((node + 1) / 2)
                self._log_prob(batch.tensors).backward()
                for name in total:
                    parameter = self._parameters[name]
                    if parameter.grad is not None:
                        total[name] += parameter.grad * (weight / 2)
                    parameter.grad = None
            ends = []
            with torch.no_grad():
                for t in (0.0, 1.0):
                    move(t)
                    ends.append(float(self._log_prob(batch.tensors)))
        return ends[1] - ends[0], total

    @contextmanager
    def _moving(self) -> Iterator[Any]:
        """Gives what puts the weights at a place on the line, 0 to 1."""
        kept = {n: self._parameters[n].detach().clone() for n in self._parent}
        wanted = {n: p.requires_grad for n, p in self._parameters.items()}

        def move(t: float) -> None:
            with torch.no_grad():
                for name, start in self._parent.items():
                    self._parameters[name].copy_(start + t * (kept[name] - start))

        try:
            for name, parameter in self._parameters.items():
                parameter.requires_grad_(name in self._parent)
            yield move
        finally:
            with torch.no_grad():
                for name, parameter in self._parameters.items():
                    parameter.requires_grad_(wanted[name])
                    if name in kept:
                        parameter.copy_(kept[name])

    def _log_prob(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        device = next(self._model.parameters()).device
        tensors = {name: tensor.to(device) for name, tensor in batch.items()}
        labels = tensors.pop("labels")[:, 1:]
        logits = self._model(**tensors).logits[:, :-1].float()
        taken = labels.clamp(min=0).unsqueeze(-1)
        found = logits.log_softmax(-1).gather(-1, taken).squeeze(-1)
        return (found * (labels >= 0)).sum()
