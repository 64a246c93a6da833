"""Which layers of a later model lost a principle that a governed model kept.

Layers are exchanged between the two models, as `patching` does: one of the later model
set back to its governed weights, and one of the later model put alone into the governed
one. Then the first layers are set back together until most of the fall is recovered.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from attest.errors import ProfileError
from attest.training.mechanism import named_parameters, unwrap
from attest.training.profile.diagnosis import RECOVERED, Blame, Diagnosis, Fall
from attest.training.profile.patching import Weights, mixing
from attest.training.profile.probe import Probe
from attest.training.profile.probe_loss import chunk_losses
from attest.training.routing import Layout

__all__ = ["diagnose"]

_SAMPLES = 2000
_LEAST_ROWS = 4


def diagnose(
    model: nn.Module, later: Weights, probe: Probe, layout: Layout
) -> Diagnosis:
    """Whether and where the later weights lost what `model`, the governed one, knows.

    Every chunk of the probe is one row. Takes 2 + 3 x units evaluations of its loss at
    most, and leaves the model as it is. The same input gives the same diagnosis.

    Raises:
        ProfileError: fewer than 4 rows, a row that is not alone in its chunk, weights
            of another shape, or a loss that is not finite.
    """
    if probe.rows != len(probe.chunks) or probe.rows < _LEAST_ROWS:
        raise ProfileError(
            f"diagnosis of {probe.principle!r}: expected at least {_LEAST_ROWS} "
            f"held-out rows, each a chunk of its own, found {probe.rows} rows",
            hint="add held-out rows of this principle",
        )
    inner, tokens = unwrap(model), torch.tensor(probe.weights, dtype=torch.float64)
    with mixing(model, later, layout) as mix:

        def measure(units: Sequence[str]) -> torch.Tensor:
            mix(units)
            losses = torch.tensor(chunk_losses(inner, probe), dtype=torch.float64)
            return losses * tokens

        changed = _changed(model, later, layout)
        governed, lost = measure(()), measure(changed)
        fall = _fall(lost - governed)
        if fall.verdict != "degraded":
            return Diagnosis(probe.principle, fall)
        units = _blamed(measure, changed, (governed, lost))
        responsible, recovered = _together(measure, units, changed, (governed, lost))
    return Diagnosis(
        probe.principle,
        fall,
        units=units,
        responsible=responsible,
        recovered=recovered,
    )


def _changed(model: nn.Module, later: Weights, layout: Layout) -> tuple[str, ...]:
    different = {
        layout.units[name]
        for name, parameter in named_parameters(model).items()
        if not torch.equal(parameter, later[name].to(parameter))
    }
    return tuple(sorted(different))


def _resampled(rows: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(rows, (_SAMPLES, rows), generator=generator)


def _fall(differences: torch.Tensor) -> Fall:
    means = differences[_resampled(len(differences))].mean(dim=1)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=means.dtype)).tolist()
    return Fall(len(differences), differences.mean().item(), low, high)


def _blamed(
    measure: Callable[[Sequence[str]], torch.Tensor],
    changed: Sequence[str],
    ends: tuple[torch.Tensor, torch.Tensor],
) -> tuple[Blame, ...]:
    governed, lost = ends
    restore = torch.stack(
        [lost - measure([u for u in changed if u != unit]) for unit in changed]
    )
    insert = torch.stack([measure([unit]) - governed for unit in changed])
    both = (restore + insert) / 2
    scores = both.mean(dim=1)
    total = scores.clamp(min=0).sum().item()
    leaders = both[:, _resampled(both.shape[1])].mean(dim=2).argmax(dim=0)
    found = [
        Blame(
            unit=unit,
            restore=restore[place].mean().item(),
            insert=insert[place].mean().item(),
            share=max(scores[place].item(), 0.0) / total if total else 0.0,
            first=(leaders == place).double().mean().item(),
        )
        for place, unit in enumerate(changed)
    ]
    return tuple(sorted(found, key=lambda b: (-(b.restore + b.insert), b.unit)))


def _together(
    measure: Callable[[Sequence[str]], torch.Tensor],
    units: Sequence[Blame],
    changed: Sequence[str],
    ends: tuple[torch.Tensor, torch.Tensor],
) -> tuple[tuple[str, ...], float]:
    """As few of the first units as recover most of the fall, and what they recover."""
    governed, lost = ends
    fall = (lost - governed).mean().item()
    back: tuple[str, ...] = ()
    recovered = 0.0
    for unit in units:
        back = (*back, unit.unit)
        left = measure([u for u in changed if u not in back])
        recovered = (lost - left).mean().item() / fall
        if recovered >= RECOVERED:
            break
    return back, recovered
