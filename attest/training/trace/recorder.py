"""Recording a run so that its answers can be traced."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attest.errors import TrainingError
from attest.training.routing import Schedule
from attest.training.trace.record import Record, Track, sketch_digest
from attest.training.trace.sketch import Sketcher

__all__ = ["TraceRecorder"]


class TraceRecorder:
    """An observer that keeps what `attest trace` needs.

        recorder = TraceRecorder(model, schedule)
        Trainer(model, ledger, progress=say, observers=[recorder]).governed(...)
        digests = recorder.write(run / "trace")

    For each principle the exact sum of all changes that its steps made: principles and
    layers get their shares from it, and these add up. For each step a sketch of its
    change, which only puts steps in an order.

    It holds, on the parameters' device, the tensors of one route and one float32 sum
    per principle of that size; and 2 bytes per number of a sketch in main memory, 64
    numbers per matrix at side 8. Under DDP one rank records. Sharded parameters (FSDP)
    are not supported: a shard's sketch is not that of its tensor.
    """

    def __init__(self, model: nn.Module, schedule: Schedule, *, side: int = 8) -> None:
        self._parameters = dict(model.named_parameters())
        self._schedule = schedule
        shapes = {name: tuple(p.shape) for name, p in self._parameters.items()}
        self._sketcher = Sketcher(shapes, side=side)
        self.record = Record(side, schedule.layout.units)
        self._before: dict[str, torch.Tensor] = {}
        self._count = 0

    def before(self, principle: str | None) -> None:
        """Keep the tensors that the step may change."""
        self._before = {
            name: self._parameters[name].detach().clone()
            for name in self._track(principle).names
        }

    def after(self, principle: str | None) -> Mapping[str, Any]:
        """Add the change up; `sketch` in the ledger is the digest of its sketch.

        Raises:
            TrainingError: the change is not finite.
        """
        track = self._track(principle)
        change = {
            name: self._parameters[name].detach().float() - old.float()
            for name, old in self._before.items()
        }
        self._before = {}
        row = self._sketcher.sketch(change, track.names)
        if not torch.isfinite(row).all():
            raise TrainingError(
                "trace: the change of a step is not finite",
                hint="lower the learning rate; the step is not in the ledger",
            )
        for name, delta in change.items():
            track.deltas[name] += delta
        scale = float(row.abs().max()) if row.numel() else 0.0
        sketch = (row / scale if scale else row).half()
        track.sketches.append(sketch)
        track.scales.append(scale)
        track.steps.append(self._count)
        self._count += 1
        return {"sketch": sketch_digest(sketch, scale)}

    def write(self, folder: Path) -> dict[str, str]:
        """Write the trace's files into a new folder; see `Record.write`."""
        return self.record.write(folder)

    def _track(self, principle: str | None) -> Track:
        key = principle or ""
        tracks = self.record.tracks
        if key not in tracks:
            names = self._names(principle)
            deltas = {n: torch.zeros_like(self._parameters[n]).float() for n in names}
            tracks[key] = Track(names, deltas)
        return tracks[key]

    def _names(self, principle: str | None) -> tuple[str, ...]:
        if principle is not None:
            return self._schedule.route(principle).tensors
        return tuple(sorted(n for n, p in self._parameters.items() if p.requires_grad))
