"""What is shown of profiles: a row per principle, of one run or over several seeds."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attest.errors import FormatError
from attest.training.profile.values import MILLION, Profile

__all__ = ["Number", "Row", "rows"]


@dataclass(frozen=True, slots=True)
class Number:
    """A value with its standard error over probe chunks, or deviation over seeds."""

    value: float
    error: float | None = None

    def __str__(self) -> str:
        error = "" if self.error is None else f" ±{self.error:.2f}"
        return f"{self.value:.2f}{error}"


@dataclass(frozen=True, slots=True)
class Row:
    """One principle's profile, ready to be drawn.

    Attributes:
        runs: how many seeds it is the mean of.
        layers: shares of the blocks, which sum to one where anything was taken up.
        errors: of each share, where known.
        by_source: nats that the steps of each principle took away, negative if added.
        verdicts: in words; of every run that is not simply valid.
    """

    principle: str
    runs: int
    band: tuple[int, ...]
    layers: tuple[float, ...]
    errors: tuple[float, ...] | None
    entropy_normalised: Number
    effective_depth: Number
    centroid: Number
    in_band: Number | None
    outside: Number
    negative_share: Number
    residual: Number
    variation: Number | None
    by_source: Mapping[str, float]
    verdicts: tuple[str, ...]


def rows(runs: Sequence[Sequence[Profile]]) -> list[Row]:
    """One row per principle, in order of appearance; means where there are several.

    Raises:
        FormatError: two runs have another number of layers or another band for one
            principle, so that a mean would mean nothing.
    """
    by_principle: dict[str, list[Profile]] = {}
    for run in runs:
        for profile in run:
            by_principle.setdefault(profile.principle, []).append(profile)
    return [_row(profiles) for profiles in by_principle.values()]


def _row(profiles: Sequence[Profile]) -> Row:
    first = profiles[0]
    for other in profiles:
        if (other.blocks, other.band) != (first.blocks, first.band):
            raise FormatError(
                f"profiles of {first.principle!r}: expected {first.blocks} layers and "
                f"the band {list(first.band)} in all runs, found {other.blocks} and "
                f"{list(other.band)}",
                hint="combine runs of one recipe that differ in their seed alone",
            )
    bars = first.bars if len(profiles) == 1 else None
    columns = list(zip(*(p.layers for p in profiles), strict=True))
    in_band = [p.in_band for p in profiles if p.in_band is not None]
    distances = [p.total_variation for p in profiles if p.total_variation is not None]
    errors = tuple(bars.layers) if bars else None
    if len(profiles) > 1:
        errors = tuple(statistics.stdev(column) / MILLION for column in columns)
    return Row(
        principle=first.principle,
        runs=len(profiles),
        band=first.band,
        layers=tuple(statistics.fmean(column) / MILLION for column in columns),
        errors=errors,
        entropy_normalised=_number(
            [p.entropy_normalised for p in profiles],
            bars.entropy_normalised if bars else None,
        ),
        effective_depth=_number([p.effective_depth for p in profiles]),
        centroid=_number(
            [p.centroid for p in profiles], bars.centroid if bars else None
        ),
        in_band=_number(in_band, bars.in_band if bars else None) if in_band else None,
        outside=_number([p.outside for p in profiles]),
        negative_share=_number([p.negative_share for p in profiles]),
        residual=_number([p.residual for p in profiles]),
        variation=_number(distances) if distances else None,
        by_source=_by_source(profiles),
        verdicts=tuple(p.verdict for p in profiles if p.verdict != "valid"),
    )


def _by_source(profiles: Sequence[Profile]) -> dict[str, float]:
    names = dict.fromkeys(name for p in profiles for name in p.by_source)
    return {
        name: statistics.fmean(p.by_source.get(name, 0) for p in profiles) / MILLION
        for name in names
    }


def _number(values: Sequence[float], error: float | None = None) -> Number:
    if len(values) > 1:
        error = statistics.stdev(values)
    return Number(statistics.fmean(values), error)
