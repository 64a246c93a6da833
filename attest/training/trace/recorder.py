"""Recording a run so that its answers can be traced."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attest.errors import TrainingError
from attest.training.batches import Example
from attest.training.routing import Schedule
from attest.training.trace.record import Record, Track, sketch_digest
from attest.training.trace.sketch import Sketcher
from attest.training.trace.threshold import choose_threshold

__all__ = ["TraceRecorder"]

_Tensors = dict[str, torch.Tensor]


class TraceRecorder:
    """An observer that keeps what `attest trace` needs.

        recorder = TraceRecorder(model, schedule)
        Trainer(model, ledger, progress=say, observers=[recorder]).governed(...)
        digests = recorder.write(run / "trace", rows=examples)

    With momentum, most of what a step changes was asked for by batches of earlier
    steps. So each change is taken apart: what earlier steps of the same optimizer still
    push, decayed by `momentum`, belongs to them; the rest is the step's own. The parts
    add up to the whole change whatever the decay is. It is exact for SGD with momentum
    at a steady rate, and close for Adam (its first beta), whose second moment and rate
    change slowly.

    Per principle the sum of all that its steps did is kept: principles and layers get
    their shares from it. Per step a sketch of its own part is kept, which only puts
    steps in an order.

    It holds, on the parameters' device and in float32, two copies of a route's tensors
    and two more for each principle; and 2 bytes per number of a sketch in main memory,
    64 numbers per matrix at side 8. Under DDP one rank records.
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: Schedule,
        *,
        momentum: float = 0.9,
        side: int = 8,
    ) -> None:
        self._model, self._schedule = model, schedule
        self._parameters = dict(model.named_parameters())
        self._trained = {n for n, p in self._parameters.items() if p.requires_grad}
        shapes = {name: tuple(p.shape) for name, p in self._parameters.items()}
        self._sketcher = Sketcher(shapes, side=side)
        self._side, self._momentum = side, momentum
        self._tracks: dict[str, Track] = {}
        self._optimizers: dict[tuple[str, ...], _Optimizer] = {}
        self._before: _Tensors = {}
        self._steps = 0

    @property
    def record(self) -> Record:
        """What was kept so far, with the deltas of all steps until now."""
        tracks = {
            principle: replace(
                track, deltas=self._optimizers[track.names].deltas(principle)
            )
            for principle, track in self._tracks.items()
        }
        units = self._schedule.layout.units
        return Record(self._side, self._momentum, units, tracks)

    def before(self, principle: str | None) -> None:
        """Keep the tensors that the step may change.

        Raises:
            TrainingError: they are shards, of which no sketch of the whole can be made.
        """
        names = self._track(principle).names
        if any(hasattr(self._parameters[name], "placements") for name in names):
            raise TrainingError(
                "trace: the parameters are sharded over ranks (FSDP)",
                hint="train without a TraceRecorder, or on one rank or under DDP",
            )
        self._before = {
            name: self._parameters[name].detach().to(torch.float32, copy=True)
            for name in names
        }

    def after(self, principle: str | None) -> Mapping[str, Any]:
        """Add the change up; `sketch` in the ledger is the digest of its sketch.

        Raises:
            TrainingError: the change is not finite.
        """
        track, key = self._track(principle), principle or ""
        change, self._before = self._before, {}
        for name, old in change.items():
            torch.sub(self._parameters[name].detach(), old, out=old)
        own = self._optimizers[track.names].own(change)
        row = self._sketcher.sketch(own, track.names)
        if not torch.isfinite(row).all():
            raise TrainingError(
                "trace: the change of a step is not finite",
                hint="lower the learning rate; the step is not in the ledger",
            )
        self._optimizers[track.names].add(key, own, change)
        scale = float(row.abs().max()) if row.numel() else 0.0
        sketch = (row / scale if scale else row).half()
        track.sketches.append(sketch)
        track.scales.append(scale)
        track.steps.append(self._steps)
        self._steps += 1
        return {"sketch": sketch_digest(sketch, scale)}

    def write(self, folder: Path, *, rows: Sequence[Example] = ()) -> dict[str, str]:
        """Write the trace's files into a new folder, at the end of the run.

        `rows` are training rows, of which a few hundred are enough: from their gains
        comes the threshold below which a trace abstains. Returns the digests of the
        files, as `training.trace` of the statement.

        Raises:
            FileExistsError: the folder exists.
        """
        record = self.record
        if rows:
            record.threshold = choose_threshold(
                self._model, record, rows, routed=set(self._schedule.routes)
            )
        return record.write(folder)

    def state_dict(self) -> dict[str, Any]:
        """All that was kept so far, for a checkpoint of the run."""
        return {
            "steps": self._steps,
            "tracks": {key: asdict(track) for key, track in self._tracks.items()},
            "optimizers": [
                asdict(optimizer) for optimizer in self._optimizers.values()
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Be as when `state_dict` gave this."""
        self._steps = int(state["steps"])
        self._tracks = {
            key: Track(**{**track, "names": tuple(track["names"])})
            for key, track in state["tracks"].items()
        }
        found = [
            _Optimizer(**{**item, "names": tuple(item["names"])})
            for item in state["optimizers"]
        ]
        self._optimizers = {item.names: item for item in found}

    def _track(self, principle: str | None) -> Track:
        key = principle or ""
        if key not in self._tracks:
            names = self._names(principle)
            self._tracks[key] = Track(names, {})
            self._optimizers.setdefault(names, _Optimizer(names, self._momentum))
        return self._tracks[key]

    def _names(self, principle: str | None) -> tuple[str, ...]:
        if principle is None:
            return tuple(sorted(self._trained))
        route = self._schedule.route(principle).tensors
        return tuple(name for name in route if name in self._trained)


@dataclass(slots=True)
class _Optimizer:
    """What the steps of one optimizer did, taken apart.

    A step's change is what its own batch asked for, and what the steps before still
    push: `momentum` times the change of the step before. What a principle's steps
    pushed in all is then a geometric series over what their batches asked for.

    Attributes:
        last: the change of the last step.
        steps: how many there were.
        sums: by principle, the sum of what its batches asked for.
        pushes: by principle, its part of `last`, as of the step `at`.
    """

    names: tuple[str, ...]
    momentum: float
    last: _Tensors = field(default_factory=dict)
    steps: int = 0
    sums: dict[str, _Tensors] = field(default_factory=dict)
    pushes: dict[str, _Tensors] = field(default_factory=dict)
    at: dict[str, int] = field(default_factory=dict)

    def own(self, change: _Tensors) -> _Tensors:
        """What the step's own batch asked for."""
        if not self.last:
            return {name: delta.clone() for name, delta in change.items()}
        return {
            name: torch.sub(delta, self.last[name], alpha=self.momentum)
            for name, delta in change.items()
        }

    def add(self, principle: str, own: _Tensors, change: _Tensors) -> None:
        """Take the step in; both dictionaries are the optimizer's from now on."""
        self.steps, self.last = self.steps + 1, change
        if principle not in self.sums:
            self.sums[principle] = {name: delta.clone() for name, delta in own.items()}
            self.pushes[principle] = own
        else:
            decay = self.momentum ** (self.steps - self.at[principle])
            for name, delta in own.items():
                self.sums[principle][name].add_(delta)
                self.pushes[principle][name].mul_(decay).add_(delta)
        self.at[principle] = self.steps

    def deltas(self, principle: str) -> _Tensors:
        """What the principle's steps added to each tensor until now."""
        decay = self.momentum ** (self.steps - self.at[principle] + 1)
        return {
            name: (total - decay * self.pushes[principle][name]) / (1 - self.momentum)
            for name, total in self.sums[principle].items()
        }
