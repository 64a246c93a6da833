"""Recording a run so that its answers can be traced."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
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

    It holds, on the parameters' device, a copy of one route's tensors, and two float32
    copies of them per principle; and 2 bytes per number of a sketch in main memory, 64
    numbers per matrix at side 8. Under DDP one rank records.

    Attributes:
        record: what was kept so far.
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
        self.record = Record(side, momentum, schedule.layout.units)
        self._before: _Tensors = {}
        # What each principle's steps would still push, by optimizer and principle.
        self._pushes: dict[tuple[str, ...], dict[str, _Tensors]] = {}

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
        self._before = {n: self._parameters[n].detach().clone() for n in names}

    def after(self, principle: str | None) -> Mapping[str, Any]:
        """Add the change up; `sketch` in the ledger is the digest of its sketch.

        Raises:
            TrainingError: the change is not finite.
        """
        track, key = self._track(principle), principle or ""
        change = {
            name: self._parameters[name].detach().float() - old.float()
            for name, old in self._before.items()
        }
        self._before = {}
        own = self._own(change, self._pushes.get(track.names, {}))
        row = self._sketcher.sketch(own, track.names)
        if not torch.isfinite(row).all():
            raise TrainingError(
                "trace: the change of a step is not finite",
                hint="lower the learning rate; the step is not in the ledger",
            )
        self._push(track.names, key, own)
        scale = float(row.abs().max()) if row.numel() else 0.0
        sketch = (row / scale if scale else row).half()
        track.sketches.append(sketch)
        track.scales.append(scale)
        track.steps.append(self.record.steps)
        return {"sketch": sketch_digest(sketch, scale)}

    def write(self, folder: Path, *, rows: Sequence[Example] = ()) -> dict[str, str]:
        """Write the trace's files into a new folder, at the end of the run.

        `rows` are training rows, of which a few hundred are enough: from their gains
        comes the threshold below which a trace abstains. Returns the digests of the
        files, as `training.trace` of the statement.

        Raises:
            FileExistsError: the folder exists.
        """
        if rows:
            self.record.threshold = choose_threshold(
                self._model, self.record, rows, routed=set(self._schedule.routes)
            )
        return self.record.write(folder)

    def state_dict(self) -> dict[str, Any]:
        """All that was kept so far, for a checkpoint of the run."""
        return {
            "tracks": {key: asdict(track) for key, track in self.record.tracks.items()},
            "pushes": [[list(n), by] for n, by in self._pushes.items()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Be as when `state_dict` gave this."""
        self.record.tracks = {
            key: Track(**{**track, "names": tuple(track["names"])})
            for key, track in state["tracks"].items()
        }
        self._pushes = {tuple(names): by for names, by in state["pushes"]}

    def _own(self, change: _Tensors, pushes: Mapping[str, _Tensors]) -> _Tensors:
        """The change without what earlier steps of this optimizer still push."""
        decay = self.record.momentum
        own = {}
        for name, delta in change.items():
            for earlier in pushes.values():
                delta = delta - decay * earlier[name]  # noqa: PLW2901
            own[name] = delta
        return own

    def _push(self, names: tuple[str, ...], key: str, own: _Tensors) -> None:
        """Decay all pushes of an optimizer, add the new one, and sum them up."""
        pushes = self._pushes.setdefault(names, {})
        pushes.setdefault(key, {n: torch.zeros_like(t) for n, t in own.items()})
        for principle, push in pushes.items():
            deltas = self.record.tracks[principle].deltas
            for name in names:
                push[name] *= self.record.momentum
                if principle == key:
                    push[name] += own[name]
                deltas[name] += push[name]

    def _track(self, principle: str | None) -> Track:
        key = principle or ""
        tracks = self.record.tracks
        if key not in tracks:
            names = self._names(principle)
            deltas = {
                name: torch.zeros_like(self._parameters[name], dtype=torch.float32)
                for name in names
            }
            tracks[key] = Track(names, deltas)
        return tracks[key]

    def _names(self, principle: str | None) -> tuple[str, ...]:
        if principle is None:
            return tuple(sorted(self._trained))
        route = self._schedule.route(principle).tensors
        return tuple(name for name in route if name in self._trained)
