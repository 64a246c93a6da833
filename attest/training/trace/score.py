"""From one answer to principles, layers and events.

Between the parent's weights and the model's, log p(answer | prompt) changes by the
integral of its gradient along the straight line. With the gradient averaged over the
line, every part of the change of weights has its share of the gain, and the shares add
up (integrated gradients, Sundararajan et al. 2017, over weights in place of inputs).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import nn

from attest.errors import ConfigurationError
from attest.training.batches import Example
from attest.training.ledger import counted
from attest.training.trace.line import Line, Tensors
from attest.training.trace.record import Record
from attest.training.trace.sketch import Sketcher
from attest.training.trace.values import (
    EventScore,
    PrincipleShare,
    RowScore,
    Trace,
    is_governed,
)

__all__ = ["Tracer", "ledger_events"]

# The gradient is taken at 4 places of the line, then at twice as many, and so on, until
# the shares miss no more than this part of the gain.
_RESIDUAL = 0.05
_FIRST_POINTS, _MOST_POINTS = 4, 32
# Rows whose gradients are compared with the answer's: one backward pass each.
_MOST_ROWS = 512
# The cosine of two rows is then right to about 0.01.
_ROW_SIDE = 16
_ROWS_PER_EVENT = 3
# Where on the line rows are compared: before the model knew them, when their gradients
# say what they teach, and not at its end, where they are rounding.
_PLACES = (0.5, 0.9)
_RESAMPLES = 1000
_CHUNK = 4096
_EPSILON = 1e-30


def ledger_events(path: Path) -> list[dict[str, Any]]:
    """The ledger's records of observed steps, in order, without those that were undone.

    Raises:
        LedgerError: as `attest.training.ledger.counted`.
    """
    return [record for record in counted(path) if "sketch" in record]


def _no_row(_: str) -> Example | None:
    return None


class Tracer:
    """Traces answers of one model.

    Args:
        model: as it is after the last recorded step, in float32 and in `eval()`. It is
            moved while a call lasts, and has its own weights again at its end.
        events: what the ledger says about the steps, as `ledger_events` gives it.
        rows: gives a training row by its sample id, None where it is not at hand.

    Raises:
        ConfigurationError: record and events are not of the same run.
    """

    def __init__(
        self,
        model: nn.Module,
        record: Record,
        events: Sequence[Mapping[str, Any]],
        *,
        rows: Callable[[str], Example | None] = _no_row,
    ) -> None:
        if record.steps != len(events):
            raise ConfigurationError(
                f"trace: expected {record.steps} steps with a sketch in the ledger, "
                f"found {len(events)}",
                hint="give ledger and trace of the same run",
            )
        self._record, self._events, self._rows = record, events, rows
        parameters = dict(model.named_parameters())
        shapes = {name: tuple(p.shape) for name, p in parameters.items()}
        self._sketcher = Sketcher(shapes, side=record.side)
        self._fine = Sketcher(shapes, side=_ROW_SIDE)
        self._alike: dict[str, torch.Tensor] = {}
        self._line = Line(model, record.parent(parameters))

    def trace(self, example: Example, *, top: int = 10) -> Trace:
        """Trace one answer; id and principle of the example are not looked at."""
        ((before, after),) = self._line.ends([example])
        gain, threshold = after - before, self._record.threshold
        tokens = len(example.answer)
        if not is_governed(gain, threshold):
            return Trace(tokens, gain, threshold)
        points, residual, gradient = self._gradient(example, gain)
        return Trace(
            tokens=tokens,
            gain=gain,
            threshold=threshold,
            residual=residual,
            points=points,
            principles=self._principles(example, gradient),
            events=self._ranked(gradient)[:top],
        )

    def _gradient(self, example: Example, gain: float) -> tuple[int, float, Tensors]:
        points = _FIRST_POINTS
        while True:
            gradient = self._line.gradient(example, points=points)
            explained = sum(
                _dot(gradient, track.deltas) for track in self._record.tracks.values()
            )
            residual = abs(explained - gain) / abs(gain)
            if residual <= _RESIDUAL or points >= _MOST_POINTS:
                return points, residual, gradient
            points *= 2

    # --- principles and layers --------------------------------------------------------

    def _principles(
        self, example: Example, gradient: Tensors
    ) -> tuple[PrincipleShare, ...]:
        tracks = self._record.tracks
        layers = [self._layers(gradient, track.deltas) for track in tracks.values()]
        tokens = self._line.token_shares(
            example, [track.deltas for track in tracks.values()], points=_FIRST_POINTS
        )
        shares = [
            PrincipleShare(principle, sum(by_layer.values()), by_layer, *more)
            for principle, by_layer, more in zip(
                tracks, layers, zip(tokens, _support(tokens), strict=True), strict=True
            )
        ]
        return tuple(sorted(shares, key=lambda share: -share.nats))

    def _layers(self, gradient: Tensors, deltas: Tensors) -> dict[str, float]:
        layers: dict[str, float] = {}
        for name, unit in self._record.units.items():
            if name in deltas:
                part = _dot({name: gradient[name]}, deltas)
                layers[unit] = layers.get(unit, 0.0) + part
        return layers

    # --- events -----------------------------------------------------------------------

    def _ranked(self, gradient: Tensors) -> list[EventScore]:
        """All events, best first: by their sketches, then by their rows as well."""
        steps = self._steps(gradient)
        first = np.argsort([-score for _, score in steps], kind="stable")
        rows = self._row_scores(gradient, [steps[n][0]["samples"] for n in first])
        best = [
            sorted(
                (RowScore(s, rows[s]) for s in set(event["samples"]) if s in rows),
                key=lambda row: (-row.score, row.id),
            )[:_ROWS_PER_EVENT]
            for event, _ in steps
        ]
        scores = _standard([score for _, score in steps])
        if rows:
            means = [fmean(r.score for r in b) if b else math.nan for b in best]
            scores = scores + _standard(means)
        found = [
            EventScore(
                event["seq"],
                event["principle"] or "",
                float(score),
                step,
                tuple(alike),
                tuple(event["samples"]),
            )
            for (event, step), alike, score in zip(steps, best, scores, strict=True)
        ]
        return sorted(found, key=lambda event: (-event.score, event.seq))

    def _steps(self, gradient: Tensors) -> list[tuple[Mapping[str, Any], float]]:
        """Every event and the cosine of its sketch with the gradient's."""
        found: list[tuple[Mapping[str, Any], float]] = []
        for track in self._record.tracks.values():
            wanted = _unit(self._sketcher.sketch(gradient, track.names))
            for start in range(0, len(track.steps), _CHUNK):
                part = torch.stack(track.sketches[start : start + _CHUNK]).float()
                cosines = (part @ wanted / (part.norm(dim=1) + _EPSILON)).tolist()
                steps = track.steps[start : start + _CHUNK]
                found += zip(
                    [self._events[step] for step in steps], cosines, strict=True
                )
        return found

    def _row_scores(
        self, gradient: Tensors, events: Sequence[Sequence[str]]
    ) -> dict[str, float]:
        """Cosines of rows, for as many of the first events as the limit allows."""
        wanted: dict[str, Example] = {}
        for samples in events:
            new = {s: self._rows(s) for s in samples if s not in wanted}
            known = {sample: row for sample, row in new.items() if row is not None}
            if len(wanted) + len(known) > _MOST_ROWS:
                break
            wanted |= known
        self._read_rows({s: row for s, row in wanted.items() if s not in self._alike})
        answer = _unit(self._fine.sketch(gradient, sorted(gradient)))
        return {sample: float(self._alike[sample] @ answer) for sample in wanted}

    def _read_rows(self, rows: Mapping[str, Example]) -> None:
        """Keep the mean direction of each row, as a sketch; later calls find it."""
        for place in _PLACES:
            found = self._line.gradients(list(rows.values()), place=place)
            for sample, gradient in zip(rows, found, strict=True):
                part = _unit(self._fine.sketch(gradient, sorted(gradient)))
                before = self._alike.get(sample, torch.zeros_like(part))
                self._alike[sample] = before + part / len(_PLACES)


def _unit(vector: torch.Tensor) -> torch.Tensor:
    return vector / (vector.norm() + _EPSILON)


def _dot(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> float:
    return sum(
        float(
            torch.dot(
                left[name].flatten().float(), other.flatten().to(left[name].device)
            )
        )
        for name, other in right.items()
        if name in left
    )


def _standard(values: Sequence[float]) -> np.ndarray[Any, Any]:
    """Distances from the mean in standard deviations; unknown ones far below."""
    found = np.asarray(values, dtype=float)
    spread = float(np.nanstd(found)) or 1.0
    return np.nan_to_num((found - np.nanmean(found)) / spread, nan=-10.0)


def _support(tokens: Sequence[Sequence[float]]) -> list[float]:
    """In which share of answers of resampled tokens each principle leads."""
    parts = np.asarray(tokens)
    count = parts.shape[1]
    drawn = np.random.default_rng(0).integers(count, size=(_RESAMPLES, count))
    leads = parts[:, drawn].sum(-1).argmax(0)
    return [float((leads == number).mean()) for number in range(len(parts))]
