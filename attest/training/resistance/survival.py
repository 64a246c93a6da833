"""Survival curves over runs: how many still keep a principle after so many steps.

Durations are in optimizer steps. A run that was still above half when it ended is
censored: it says "more than N" and never N.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from math import prod

__all__ = ["Duration", "Point", "kaplan_meier", "median"]

# Halvings of [0, 1]; 2^-40 is far below the digits that anybody reads.
_HALVINGS = 40
# Terms of alternating sign reach about 2^(2n) for n runs and cancel to a number below
# one; what cancels has to be carried.
_DIGITS_BEYOND = 30
# A product of shares such as 2/3 * 3/4 misses its half by as much.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, order=True)
class Duration:
    """How long one run lasted.

    Attributes:
        steps: after this many steps the principle was lost, or, when censored, it was
            still kept.
    """

    steps: int
    censored: bool = False

    def __str__(self) -> str:
        return f">{self.steps}" if self.censored else str(self.steps)


@dataclass(frozen=True, slots=True)
class Point:
    """The share of runs that last longer than `steps`, with its pointwise interval."""

    steps: int
    share: float
    low: float
    high: float


def kaplan_meier(
    durations: Sequence[Duration], *, confidence: float = 0.95
) -> list[Point]:
    """The product-limit estimate, at step 0 and at the steps of all durations.

    A run censored at a step counts as at risk for losses at that same step. The
    interval is the beta product confidence procedure of Fay, Brittain and Proschan
    (Biostatistics 14, 2013): exact for few runs, where Greenwood's formula says 1 to 1
    as long as nothing was lost, and equal to Clopper and Pearson's without censoring.
    It speaks of runs like these. Runs that share a trained model say nothing about
    another training.
    """
    if not durations:
        return []
    alpha = (1 - confidence) / 2
    lost: list[int] = []
    points = [Point(0, 1.0, _quantile([len(durations)], alpha), 1.0)]
    for step, falls, at_risk, left, share in _table(durations):
        # Equal times are taken one after the other, as the procedure asks.
        lost += range(at_risk, at_risk - falls, -1)
        # Without a loss the estimate stays, but fewer runs hold up its lower end.
        low = _quantile([*lost, left], alpha) if left else 0.0
        high = _quantile(lost, 1 - alpha) if lost else 1.0
        if points[-1].steps == step:
            points.pop()
        points.append(Point(step, share, low, high))
    return points


def median(durations: Sequence[Duration]) -> Duration | None:
    """The earliest step by which half of the runs had lost it; None for no runs.

    Censored, at the last step that any run reached, when it is not that many.
    """
    if not durations:
        return None
    for step, *_, share in _table(durations):
        if share <= 1 / 2 + _ROUNDING:
            return Duration(step)
    return Duration(max(d.steps for d in durations), censored=True)


def _table(
    durations: Sequence[Duration],
) -> Iterator[tuple[int, int, int, int, float]]:
    """Per time: the time, losses at it, runs at risk before and after, estimate."""
    at_risk, share = len(durations), 1.0
    for step in sorted({d.steps for d in durations}):
        here = [d for d in durations if d.steps == step]
        falls = sum(not d.censored for d in here)
        share *= (at_risk - falls) / at_risk
        yield step, falls, at_risk, at_risk - len(here), share
        at_risk -= len(here)


def _quantile(rates: Sequence[int], level: float) -> float:
    """The quantile of a product of independent Beta(rate, 1), all rates distinct.

    Minus its logarithm is a sum of exponentials, so the distribution function is
    sum_i s^rate_i * prod_j rate_j / (rate_j - rate_i).
    """
    with localcontext() as context:
        context.prec = _DIGITS_BEYOND + max(rates)
        weights = [
            prod((Decimal(b) / (b - a) for b in rates if b != a), start=Decimal(1))
            for a in rates
        ]
        low, high = Decimal(0), Decimal(1)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            terms = (w * middle**a for w, a in zip(weights, rates, strict=True))
            low, high = (middle, high) if sum(terms) < level else (low, middle)
        return float(low)
