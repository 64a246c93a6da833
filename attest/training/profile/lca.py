"""The recorder: allocates the loss change of probes to layers while a model trains.

Loss change allocation (Lan et al., NeurIPS 2019, arXiv 1909.01440): along the path of
the weights, -grad L . d theta is the loss that a movement takes away. Its integral over
the coordinates of one layer is that layer's part, and all parts add up to the drop. The
path is followed in straight lines, which begin one step long and grow while the easiest
rule of `quadrature` is enough.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from attest.errors import ProfileError
from attest.training.mechanism import named_parameters, unwrap
from attest.training.profile.gap import Gap
from attest.training.profile.measured import (
    BILLION,
    Allocation,
    Event,
    Measurement,
)
from attest.training.profile.probe import Probe
from attest.training.profile.probe_loss import (
    chunk_losses,
    mean_loss,
    probe_loss,
    undisturbed,
)
from attest.training.profile.quadrature import EASIEST, Drop, Parts, integrate
from attest.training.routing import Layout, layer_unit

__all__ = ["UNROUTED", "ProfileRecorder"]

# The source of steps that belong to no principle.
UNROUTED = "unrouted"

# A probe that moved by fewer nats has not moved, and no error is large against that.
_LEAST_SCALE = 0.05
# Chosen on the demo's seeds 0 and 1, as is the tolerance: docs/profile.md.
_FIRST_LENGTH, _GROWTH = 4.0, 2.0


class ProfileRecorder:
    """Watches a stage as a `StepObserver` and measures the profile of each probe.

    `every` is the largest number of steps between two samples. When the parts of a line
    miss its loss change by more than `tolerance`, as a part of the largest loss change
    so far, more points are taken. `events` keeps what each step did, beside what each
    source did.

        recorder = ProfileRecorder(model, probes, layout)
        Trainer(model, ledger, progress=say, observers=[recorder]).governed(...)
        measured = recorder.result("governed")

    Memory: one change of the trained tensors per step of a line (per source, without
    `events`); while a sample is taken, two more copies and the gradient of one chunk.
    What changes between two steps is nobody's: it shows as a residual.

    Under DistributedDataParallel let one rank record: each would measure the same. The
    probes run through the module inside all wrappers, so nothing is compiled for them.

    Raises:
        ProfileError: no probes, or sharded parameters.
    """

    def __init__(  # noqa: PLR0913  # three things to measure, three dials
        self,
        model: nn.Module,
        probes: Sequence[Probe],
        layout: Layout,
        *,
        every: int = 20,
        tolerance: float = 0.01,
        events: bool = True,
    ) -> None:
        if not probes:
            raise ProfileError("profile: expected at least one probe, found none")
        self._model, self._probes, self._layout = unwrap(model), tuple(probes), layout
        self._parameters = named_parameters(model)
        sharded = [n for n, p in self._parameters.items() if hasattr(p, "to_local")]
        if sharded:
            raise ProfileError(
                f"profile: {sharded[0]} is sharded over several devices",
                hint="profile a run whose weights lie on one device",
            )
        self._every, self._tolerance, self._events = every, tolerance, events
        self._gap, self._steps = Gap(merge=not events), 0
        self._length = min(_FIRST_LENGTH, every)
        self._old: dict[str, torch.Tensor] = {}
        # The losses of the chunks where we begin, and those of all rows at each sample.
        self._begin: dict[str, list[float]] = {}
        self._curve: dict[int, dict[str, float]] = {}
        # By principle and source, chunk to unit.
        self._amounts: dict[tuple[str, str], list[dict[str, float]]] = {}
        # By step, then principle and unit.
        self._by_step: dict[int, dict[str, dict[str, int]]] = {}
        self._sources: dict[int, str] = {}

    def before(self, principle: str | None) -> None:  # noqa: ARG002
        """Remember what the step may change; the first one measures where we begin."""
        if not self._curve:
            with undisturbed(self._model):
                self._begin = self._chunks()
            self._curve[0] = {
                p.principle: mean_loss(p, self._begin[p.principle])
                for p in self._probes
            }
        self._old = {
            name: parameter.detach().clone()
            for name, parameter in self._parameters.items()
            if parameter.requires_grad
        }

    def after(self, principle: str | None) -> Mapping[str, Any]:
        """Record what the step changed; sample when the line is long enough.

        Raises:
            ProfileError: the loss of a probe is not finite.
        """
        change = {}
        for name, old in self._old.items():
            new = self._parameters[name].detach()
            if not torch.equal(new, old):
                change[name] = _wide(new) - _wide(old)
        self._old = {}
        source = principle or UNROUTED
        self._sources[self._steps] = source
        self._gap.add(source, step=self._steps, change=change)
        self._steps += 1
        if self._gap.steps >= int(self._length):
            self._sample()
        return {}

    def result(self, stage: str, *, seed: int | None = None) -> Measurement:
        """What was measured until now; recording can go on.

        Raises:
            ProfileError: no step was recorded, or a probe's loss is not finite.
        """
        if not self._steps:
            raise ProfileError(
                "profile: no step was recorded",
                hint="pass the recorder to the trainer as one of its observers",
            )
        if self._gap.steps:
            self._sample()
        units = self._units()
        with undisturbed(self._model):
            end = self._chunks()
        return Measurement(
            stage=stage,
            seed=seed,
            every=self._every,
            steps=self._steps,
            blocks=self._layout.count,
            units=units,
            allocations={
                probe.principle: self._allocation(probe, units, end[probe.principle])
                for probe in self._probes
            },
            curve={
                step: {name: _nano(loss) for name, loss in found.items()}
                for step, found in self._curve.items()
            },
            events=tuple(
                Event(step, self._sources[step], amounts)
                for step, amounts in sorted(self._by_step.items())
            ),
            exchanges={},
        )

    def state_dict(self) -> dict[str, Any]:
        """All that was measured, for `attest.training.resume`; no weights."""
        return {
            "steps": self._steps,
            "length": self._length,
            "begin": self._begin,
            "curve": self._curve,
            "amounts": [[*key, rows] for key, rows in self._amounts.items()],
            "by_step": self._by_step,
            "sources": self._sources,
            "gap": self._gap.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`; the model has its weights of then already."""
        self._steps, self._length = int(state["steps"]), float(state["length"])
        self._begin, self._curve = dict(state["begin"]), dict(state["curve"])
        self._amounts = {(p, s): rows for p, s, rows in state["amounts"]}
        self._by_step, self._sources = dict(state["by_step"]), dict(state["sources"])
        self._gap.load_state_dict(state["gap"])

    def _units(self) -> tuple[str, ...]:
        blocks = tuple(layer_unit(block) for block in range(self._layout.count))
        rows = (row for rows in self._amounts.values() for row in rows)
        return (*blocks, *sorted({unit for row in rows for unit in row} - set(blocks)))

    def _allocation(
        self, probe: Probe, units: Iterable[str], end: Iterable[float]
    ) -> Allocation:
        return Allocation(
            principle=probe.principle,
            band=probe.band,
            probe=probe.digest,
            rows=probe.rows,
            weights=probe.weights,
            before=tuple(map(_nano, self._begin[probe.principle])),
            after=tuple(map(_nano, end)),
            amounts={
                source: tuple(
                    tuple(_nano(row.get(unit, 0.0)) for unit in units) for row in rows
                )
                for (principle, source), rows in sorted(self._amounts.items())
                if principle == probe.principle
            },
        )

    def _losses(self) -> dict[str, float]:
        return {p.principle: probe_loss(self._model, p) for p in self._probes}

    def _chunks(self) -> dict[str, list[float]]:
        return {p.principle: chunk_losses(self._model, p) for p in self._probes}

    def _sample(self) -> None:
        """Allocate the loss change of the line, and choose how long the next one is."""
        gap, self._gap = self._gap, Gap(merge=not self._events)
        begin = self._curve[max(self._curve)]
        with undisturbed(self._model):
            end = self._curve[self._steps] = self._losses()
            drops = [
                Drop(
                    p, begin[p.principle], end[p.principle], self._allowed(p.principle)
                )
                for p in self._probes
            ]
            found = integrate(gap, self._model, drops, units=self._layout.units)
        for probe, parts, _ in found:
            self._book(probe, gap, parts)
        if all(effort == EASIEST for _, _, effort in found):
            self._length = min(self._every, self._length * _GROWTH)
        elif any(effort > EASIEST + 1 for _, _, effort in found):
            self._length = max(1.0, self._length / 2)

    def _allowed(self, principle: str) -> float:
        curve = [losses[principle] for losses in self._curve.values()]
        scale = max(abs(curve[0] - loss) for loss in curve)
        return self._tolerance * max(scale, _LEAST_SCALE)

    def _book(self, probe: Probe, gap: Gap, parts: Parts) -> None:
        for number, move in enumerate(gap.moves):
            key = (probe.principle, move.source)
            rows = self._amounts.setdefault(key, [{} for _ in probe.chunks])
            for row, found in zip(rows, (part[number] for part in parts), strict=True):
                for unit, amount in found.items():
                    row[unit] = row.get(unit, 0.0) + amount
            if self._events:
                chunks = [part[number] for part in parts]
                self._by_step.setdefault(move.step, {})[probe.principle] = {
                    unit: _nano(mean_loss(probe, [chunk[unit] for chunk in chunks]))
                    for unit in chunks[0]
                }


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _nano(value: float) -> int:
    return round(value * BILLION)
