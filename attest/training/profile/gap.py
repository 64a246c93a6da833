"""The steps between two samples: how far each moved the weights."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from attest.training.profile.probe_loss import put

__all__ = ["Gap", "Move"]


@dataclass(slots=True)
class Move:
    """What one step, or all steps of one source, added to the weights.

    Attributes:
        step: number of the first of its steps.
        change: tensor name to the change that was applied, at least in float32: in
            bfloat16 most of an intended update can be rounded away.
    """

    step: int
    source: str
    change: dict[str, torch.Tensor] = field(default_factory=dict)

    def add(self, change: Mapping[str, torch.Tensor]) -> None:
        """Add another step; what is given is kept, and not to be changed after."""
        for name, value in change.items():
            known = self.change.get(name)
            self.change[name] = value if known is None else known + value


class Gap:
    """The moves since the last sample.

    Memory: one copy of what each move changed. `merge` keeps one move per source, for
    models where one per step is too much.
    """

    def __init__(self, *, merge: bool) -> None:
        self._merge = merge
        self.moves: list[Move] = []
        self.steps = 0
        self._rows: dict[str, tuple[list[Move], torch.Tensor]] = {}

    def add(
        self, source: str, *, step: int, change: Mapping[str, torch.Tensor]
    ) -> None:
        """Record one step."""
        self.steps += 1
        self._rows.clear()
        known = [m for m in self.moves if m.source == source] if self._merge else []
        move = known[0] if known else Move(step, source)
        if not known:
            self.moves.append(move)
        move.add(change)

    def products(
        self, gradient: Mapping[str, torch.Tensor], units: Mapping[str, str]
    ) -> list[dict[str, float]]:
        """For each move, by unit, the inner product of its change with a gradient."""
        found: dict[int, dict[str, float]] = {id(move): {} for move in self.moves}
        for name, other in gradient.items():
            movers, rows = self._matrix(name)
            if not movers:
                continue
            amounts = torch.mv(rows, other.to(rows.dtype).flatten()).tolist()
            for move, amount in zip(movers, amounts, strict=True):
                parts = found[id(move)]
                parts[units[name]] = parts.get(units[name], 0.0) + amount
        return [found[id(move)] for move in self.moves]

    def _matrix(self, name: str) -> tuple[list[Move], torch.Tensor]:
        """Who changed a tensor, and their changes as rows.

        The changes become views of the rows, so that they are in memory once.
        """
        if name not in self._rows:
            movers = [move for move in self.moves if name in move.change]
            changes = [move.change[name].flatten() for move in movers]
            rows = torch.stack(changes) if changes else torch.empty(0, 0)
            for move, row in zip(movers, rows, strict=True):
                move.change[name] = row.view_as(move.change[name])
            self._rows[name] = movers, rows
        return self._rows[name]

    def state_dict(self) -> dict[str, Any]:
        """All moves, with their changes."""
        moves = [[move.step, move.source, move.change] for move in self.moves]
        return {"steps": self.steps, "moves": moves}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._rows.clear()
        self.steps = int(state["steps"])
        self.moves = [
            Move(step, source, change) for step, source, change in state["moves"]
        ]

    def total(self) -> dict[str, torch.Tensor]:
        """The change over the whole gap, of all tensors that moved."""
        total = Move(0, "")
        for move in self.moves:
            total.add(move.change)
        return total.change

    @contextmanager
    def line(
        self, parameters: Mapping[str, nn.Parameter]
    ) -> Iterator[Callable[[float], None]]:
        """Gives a function that puts the weights to a place on the gap's straight line.

        A place is 0 for the gap's beginning and 1 for its end, where the weights are
        now, and are again, bit for bit, afterwards.
        """
        change = self.total()
        end = {name: parameters[name].detach().clone() for name in change}

        def go(place: float) -> None:
            line = {n: end[n] - (1 - place) * step for n, step in change.items()}
            put(parameters, line)

        try:
            yield go
        finally:
            put(parameters, end)
