"""The integral of -grad L . d theta over the straight line of a gap.

Gauss's rule with 1 point; where the parts then miss the loss change that was measured,
Gauss's with 3 points, and at last Kronrod's with 7, each using the earlier ones again.
They are exact for gradients that are polynomials of degree 1, 5 and 11 on the line.
"""

from collections.abc import Iterator, Mapping, Sequence

from torch import nn

from attest.training.mechanism import named_parameters
from attest.training.profile.gap import Gap
from attest.training.profile.probe import Probe
from attest.training.profile.probe_loss import chunk_gradients, mean_loss

__all__ = ["LAST_RULE", "Parts", "integrate"]

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
LAST_RULE = len(_RULES) - 1


def integrate(
    gap: Gap,
    model: nn.Module,
    *,
    units: Mapping[str, str],
    drops: Sequence[tuple[Probe, float, float]],
) -> Iterator[tuple[Probe, Parts, int]]:
    """For each probe its parts, and the number of the rule that they were had by.

    `units` is the unit of every parameter by its name. `drops` has for each probe the
    drop of its loss over the gap, and by how much the sum of the parts may miss that
    before more points are taken. Leaves `requires_grad` changed, and the weights as
    they are.
    """
    wanted = list(drops)
    at: dict[str, dict[float, Parts]] = {probe.principle: {} for probe, _, _ in wanted}
    for level, rule in enumerate(_RULES):
        new = [n for n in rule if level == 0 or n not in _RULES[level - 1]]
        _evaluate(
            gap, model, units=units, nodes=new, probes=[w[0] for w in wanted], at=at
        )
        missed = []
        for probe, drop, allowed in wanted:
            parts = _sum(rule, at[probe.principle])
            error = mean_loss(probe, [_total(row) for row in parts]) - drop
            if level == LAST_RULE or abs(error) <= allowed:
                yield probe, parts, level
            else:
                missed.append((probe, drop, allowed))
        wanted = missed
        if not wanted:
            return


def _evaluate(  # noqa: PLR0913  # what, where and for whom
    gap: Gap,
    model: nn.Module,
    *,
    units: Mapping[str, str],
    nodes: Sequence[float],
    probes: Sequence[Probe],
    at: Mapping[str, dict[float, Parts]],
) -> None:
    parameters = named_parameters(model)
    names = {name for move in gap.moves for name in move.change}
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in names)
    moved = {name: parameters[name] for name in parameters if name in names}
    with gap.line(parameters) as go:
        for node in nodes:
            go((1 + node) / 2)
            for probe in probes:
                at[probe.principle][node] = [
                    [move.product(gradient, units) for move in gap.moves]
                    for gradient in chunk_gradients(model, probe, moved)
                ]


def _sum(rule: Mapping[float, float], at: Mapping[float, Parts]) -> Parts:
    """The rule over the products at its nodes; minus a half, as [-1, 1] is 2 long."""
    first = next(iter(at.values()))
    parts: Parts = [[{} for _ in row] for row in first]
    for node, weight in rule.items():
        for chunk, row in enumerate(at[node]):
            for move, products in enumerate(row):
                target = parts[chunk][move]
                for unit, product in products.items():
                    target[unit] = target.get(unit, 0.0) - weight / 2 * product
    return parts


def _total(row: Sequence[Mapping[str, float]]) -> float:
    return sum(sum(units.values()) for units in row)
