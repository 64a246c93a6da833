"""What a recorder measured over a run, in whole numbers, and the profiles made of it.

Amounts here are integers in billionths of a nat per answer token: one step of many
takes little. Losses and amounts are kept per chunk of the probe, since both are linear
in it, and leaving out one chunk at a time gives the error bars.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from attest.training.profile.values import (
    METHOD,
    Bars,
    CrossCheck,
    Profile,
    apportion,
)

__all__ = ["BILLION", "Allocation", "Event", "Exchange", "Measurement", "jackknife"]

BILLION = 1_000_000_000
_NANO_PER_MICRO = 1000


@dataclass(frozen=True, slots=True)
class Allocation:
    """What the steps of each principle did to the probe of one principle.

    Attributes:
        weights: answer tokens of each chunk.
        before, after: loss of each chunk at the ends of the run.
        amounts: source to chunk to unit: loss taken away.
    """

    principle: str
    band: tuple[int, ...]
    probe: str
    rows: int
    weights: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    amounts: Mapping[str, tuple[tuple[int, ...], ...]]


@dataclass(frozen=True, slots=True)
class Exchange:
    """The cross-check of one principle: layers exchanged with the parent, one by one.

    Attributes:
        restore: by unit, how much the loss rises when it is set back to the parent.
        insert: by unit, how much the parent's loss falls when it alone is put in.
    """

    restore: tuple[int, ...]
    insert: tuple[int, ...]

    def check(self, blocks: int) -> CrossCheck:
        """Shares of the blocks by the mean of both."""
        pairs = zip(self.restore[:blocks], self.insert[:blocks], strict=True)
        return CrossCheck(apportion([a + b for a, b in pairs]))


@dataclass(frozen=True, slots=True)
class Event:
    """One optimizer step.

    Attributes:
        step: its number among the steps that were recorded, from 0.
        amounts: principle to unit: the loss that this step took away.
    """

    step: int
    source: str
    amounts: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Measurement:
    """All that a recorder measured over one stage.

    Attributes:
        seed: of the run, where the caller named it.
        every: the largest number of steps between two samples.
        units: all blocks in order, then what else moved of `head`, `stem` and `tied`.
        curve: step number to the probes' losses, by principle, at every sample.
        events: one per step; empty where the recorder was told to keep none.
    """

    stage: str
    seed: int | None
    every: int
    steps: int
    blocks: int
    units: tuple[str, ...]
    allocations: Mapping[str, Allocation]
    curve: Mapping[int, Mapping[str, int]]
    events: tuple[Event, ...]
    exchanges: Mapping[str, Exchange]
    method: str = METHOD

    def with_exchanges(self, exchanges: Mapping[str, Exchange]) -> "Measurement":
        """The same with a cross-check."""
        return replace(self, exchanges=dict(exchanges))

    def profile(self, principle: str) -> Profile:
        """The profile of one principle, with error bars where there are chunks."""
        allocation = self.allocations[principle]
        chunks = range(len(allocation.weights))
        exchange = self.exchanges.get(principle)
        return replace(
            self._over(allocation, chunks),
            bars=_bars(lambda kept: self._over(allocation, kept), len(chunks)),
            check=exchange.check(self.blocks) if exchange else None,
        )

    def _over(self, allocation: Allocation, chunks: Sequence[int]) -> Profile:
        mean = _weighted(allocation.weights, chunks)
        by_source = {
            source: [mean(column) for column in zip(*rows, strict=True)]
            for source, rows in allocation.amounts.items()
        }
        columns = zip(*by_source.values(), strict=True)
        allocated = [_micro(sum(column)) for column in columns]
        drop = mean(allocation.before) - mean(allocation.after)
        return Profile(
            principle=allocation.principle,
            band=allocation.band,
            blocks=self.blocks,
            units=self.units,
            allocated=tuple(allocated) or (0,) * len(self.units),
            drop=_micro(drop),
            by_source={name: _micro(sum(v)) for name, v in by_source.items()},
            probe=allocation.probe,
            rows=allocation.rows,
            every=self.every,
            steps=self.steps,
            method=self.method,
        )


def jackknife(estimates: Sequence[float]) -> float:
    """The standard error, from the estimates that each leave out one group.

    Quenouille and Tukey: the root of (n - 1) / n times the sum of squared deviations.
    """
    count = len(estimates)
    mean = sum(estimates) / count
    spread = sum((estimate - mean) ** 2 for estimate in estimates)
    return math.sqrt((count - 1) / count * spread)


def _bars(over: Callable[[list[int]], Profile], chunks: int) -> Bars | None:
    if chunks < 2:
        return None
    left = [over([c for c in range(chunks) if c != out]) for out in range(chunks)]
    in_band = [p.in_band for p in left if p.in_band is not None]
    columns = zip(*(p.layers for p in left), strict=True)
    return Bars(
        chunks=chunks,
        layers=tuple(jackknife([v / 1e6 for v in column]) for column in columns),
        entropy_normalised=jackknife([p.entropy_normalised for p in left]),
        centroid=jackknife([p.centroid for p in left]),
        in_band=jackknife(in_band) if in_band else None,
    )


def _weighted(
    weights: Sequence[int], chunks: Sequence[int]
) -> Callable[[Sequence[int]], int]:
    total = sum(weights[chunk] for chunk in chunks)

    def mean(values: Sequence[int]) -> int:
        return _divided(sum(weights[c] * values[c] for c in chunks), total)

    return mean


def _micro(nano: int) -> int:
    return _divided(nano, _NANO_PER_MICRO)


def _divided(value: int, by: int) -> int:
    """Rounded to the nearest, halves away from zero: alike for a gain and a loss."""
    size = (2 * abs(value) + by) // (2 * by)
    return size if value >= 0 else -size
