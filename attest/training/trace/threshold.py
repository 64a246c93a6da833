"""From which gain on an answer is put down to governed training."""

from collections.abc import Collection, Sequence

import numpy as np
from torch import nn

from attest.training.batches import Example
from attest.training.trace.line import Line
from attest.training.trace.record import Record
from attest.training.trace.values import Threshold

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
    """The gain that 5 % of the rows of unrouted principles reach, and at least zero.

    Without such rows, half the gain that all but 5 % of the others reach. The model is
    that after the last recorded step; it is left as it was, its mode included.
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
    if other:
        nats = float(np.quantile(other, 1 - _FALSE_ALARMS))
    else:
        nats = float(np.quantile(own, _FALSE_ALARMS)) / 2
    nats = max(nats, 0.0)
    return Threshold(
        nats,
        _share(gain >= nats for gain in other),
        _share(gain < nats for gain in own),
        len(rows),
    )


def _share(found: object) -> float | None:
    values = list(found)  # type: ignore[call-overload]
    return sum(values) / len(values) if values else None
