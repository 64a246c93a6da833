"""The integral of -grad L . d theta over the straight line of a gap.

Gauss's rule with 1 point; where the parts then miss the loss change that was measured,
Gauss's with 3 points, then Kronrod's with 7, each using the earlier ones again. They
are exact for gradients that are polynomials of degree 1, 5 and 11 on the line. Where
even that is not enough, the line is halved and each half is measured by itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from attest.training.mechanism import named_parameters
from attest.training.profile.gap import Gap
from attest.training.profile.probe import Probe
from attest.training.profile.probe_loss import chunk_gradients, mean_loss, probe_loss

__all__ = ["EASIEST", "Drop", "Parts", "integrate"]

# Chunk to move to unit: the loss that was taken away.
Parts = list[list[dict[str, float]]]

# Nodes on [-1, 1] with weights. Kronrod (1965): the extension of Gauss's 3 points, as
# tabulated in Patterson, Math. Comp. 22 (1968).
_OUTER, _GAUSS, _INNER = 0.9604912687080203, 0.7745966692414834, 0.4342437493468026
_RULES: tuple[Mapping[float, float], ...] = (
    {0.0: 2.0},
    {-_GAUSS: 5 / 9, 0.0: 8 / 9, _GAUSS: 5 / 9},
    {
        -_OUTER: 0.1046562260264673,
        -_GAUSS: 0.2684880898683334,
        -_INNER: 0.4013974147759622,
        0.0: 0.4509165386584741,
        _INNER: 0.4013974147759622,
        _GAUSS: 0.2684880898683334,
        _OUTER: 0.1046562260264673,
    },
)
EASIEST = 0

# Eight pieces: at most 105 gradients for a probe whose loss is a wall or mere noise.
_MAX_HALVINGS = 3


@dataclass(frozen=True, slots=True)
class Drop:
    """How the loss of a probe changed over a line.

    Attributes:
        begin, end: the losses where the line begins and ends.
        allowed: by how much the sum of the parts may miss the change before more
            points are taken.
    """

    probe: Probe
    begin: float
    end: float
    allowed: float


def integrate(
    gap: Gap, model: nn.Module, drops: Sequence[Drop], *, units: Mapping[str, str]
) -> list[tuple[Probe, Parts, int]]:
    """For each probe its parts, and how much it took: `EASIEST`, or more than that.

    `units` is the unit of every parameter by its name. Leaves `requires_grad` changed,
    and the weights as they are.
    """
    parameters = named_parameters(model)
    names = {name for move in gap.moves for name in move.change}
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in names)
    moved = {name: parameters[name] for name in parameters if name in names}
    if not moved:
        still: Parts = [[{} for _ in gap.moves]]
        return [(d.probe, still * len(d.probe.chunks), EASIEST) for d in drops]
    with gap.line(parameters) as go:

        def products(probe: Probe, place: float) -> Parts:
            go(place)
            return [
                gap.products(gradient, units)
                for gradient in chunk_gradients(model, probe, moved)
            ]

        def loss(probe: Probe, place: float) -> float:
            go(place)
            return probe_loss(model, probe)

        return [
            (drop.probe, *_Line(products, loss).parts(drop, (0.0, 1.0)))
            for drop in drops
        ]


@dataclass(frozen=True, slots=True)
class _Line:
    """A line on which gradients and losses can be had at every place."""

    products: Callable[[Probe, float], Parts]
    loss: Callable[[Probe, float], float]

    def parts(
        self, drop: Drop, piece: tuple[float, float], halvings: int = 0
    ) -> tuple[Parts, int]:
        start, stop = piece
        at: dict[float, Parts] = {}
        parts: Parts = []
        for level, rule in enumerate(_RULES):
            for node in rule.keys() - at.keys():
                place = start + (stop - start) * (1 + node) / 2
                at[node] = self.products(drop.probe, place)
            half = (stop - start) / 2
            parts = _sum(at, {node: -half * weight for node, weight in rule.items()})
            total = mean_loss(drop.probe, [_total(row) for row in parts])
            if abs(total - (drop.begin - drop.end)) <= drop.allowed:
                return parts, level
        if halvings == _MAX_HALVINGS:
            return parts, len(_RULES)
        middle = (start + stop) / 2
        loss = self.loss(drop.probe, middle)
        halves = (
            (Drop(drop.probe, drop.begin, loss, drop.allowed / 2), (start, middle)),
            (Drop(drop.probe, loss, drop.end, drop.allowed / 2), (middle, stop)),
        )
        found = [self.parts(half, piece, halvings + 1)[0] for half, piece in halves]
        return _sum(dict(enumerate(found)), {0: 1.0, 1: 1.0}), len(_RULES)


def _sum(at: Mapping[float, Parts], factors: Mapping[float, float]) -> Parts:
    parts: Parts = [[{} for _ in row] for row in next(iter(at.values()))]
    for node, factor in factors.items():
        for chunk, row in enumerate(at[node]):
            for move, amounts in enumerate(row):
                target = parts[chunk][move]
                for unit, amount in amounts.items():
                    target[unit] = target.get(unit, 0.0) + factor * amount
    return parts


def _total(row: Sequence[Mapping[str, float]]) -> float:
    return sum(sum(units.values()) for units in row)
