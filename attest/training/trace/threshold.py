"""From which gain on an answer is put down to governed training."""

from collections.abc import Collection, Iterable, Sequence

import numpy as np
from torch import nn

from attest.training.batches import Example
from attest.training.trace.line import Line
from attest.training.trace.record import Record
from attest.training.trace.values import LEAST_NATS, Threshold

__all__ = ["choose_threshold"]

_BATCH = 32
# Of the rows that no route was trained for, as many may lie above.
_FALSE_ALARMS = 0.05


def choose_threshold(
    model: nn.Module,
    record: Record,
    rows: Sequence[Example],
    *,
    routed: Collection[str],
) -> Threshold:
    """The gain that 5 % of the rows of unrouted principles reach, or `LEAST_NATS`.

    The larger of the two.

    The model is that after the last recorded step; it is left as it was, its mode
    included.
    """
    line = Line(model, record.parent(dict(model.named_parameters())))
    mode = model.training
    model.eval()
    try:
        gains = [
            after - before
            for start in range(0, len(rows), _BATCH)
            for before, after in line.ends(rows[start : start + _BATCH])
        ]
    finally:
        model.train(mode)
    other = [
        g for g, row in zip(gains, rows, strict=True) if row.principle not in routed
    ]
    own = [g for g, row in zip(gains, rows, strict=True) if row.principle in routed]
    nats = LEAST_NATS
    if other:
        nats = max(nats, float(np.quantile(other, 1 - _FALSE_ALARMS)))
    return Threshold(
        nats,
        _share(gain >= nats for gain in other),
        _share(gain < nats for gain in own),
        len(rows),
    )


def _share(found: Iterable[bool]) -> float | None:
    values = list(found)
    return sum(values) / len(values) if values else None
