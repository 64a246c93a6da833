"""Exchanging single units between two sets of weights, to see what each of them does.

The cross-check of a profile: it knows nothing of the path that training took. Setting a
layer back to the parent asks what the model loses without it; putting a layer alone
into the parent asks what it does by itself. Each misleads where layers work together,
so the mean of both is taken.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from attest.errors import ProfileError
from attest.training.mechanism import named_parameters, unwrap
from attest.training.profile.measured import BILLION, Exchange
from attest.training.profile.probe import Probe
from attest.training.profile.probe_loss import probe_loss, put, undisturbed
from attest.training.routing import Layout

__all__ = ["Weights", "exchange_units", "mixing", "snapshot"]

Weights = Mapping[str, torch.Tensor]


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all parameters by name, to be the parent later."""
    return {n: p.detach().clone() for n, p in named_parameters(model).items()}


@contextmanager
def mixing(
    model: nn.Module, other: Weights, layout: Layout
) -> Iterator[Callable[[Sequence[str]], None]]:
    """Gives a function that sets the named units to the other weights, all else to own.

    Afterwards the model is undisturbed and has its own weights, bit for bit. Memory:
    one copy of the weights.

    Raises:
        ProfileError: the other weights lack a tensor or have it in another shape.
    """
    parameters = named_parameters(model)
    for name, parameter in parameters.items():
        if name not in other or other[name].shape != parameter.shape:
            raise ProfileError(
                f"profile: the other weights have no {name} of this model's shape",
                hint="compare weights of one architecture; merge adapters first",
            )
    own = snapshot(model)

    def mix(units: Sequence[str]) -> None:
        chosen = set(units)
        put(
            parameters,
            {
                name: (other if layout.units[name] in chosen else own)[name]
                for name in parameters
            },
        )

    with undisturbed(unwrap(model)):
        try:
            yield mix
        finally:
            put(parameters, own)


def exchange_units(
    model: nn.Module,
    parent: Weights,
    probes: Sequence[Probe],
    layout: Layout,
    *,
    units: Sequence[str],
) -> dict[str, Exchange]:
    """For each probe what every unit does, in 2 + 2 x units evaluations of its loss.

    The model is left as it is.

    Raises:
        ProfileError: as `mixing`, or a loss is not finite.
    """
    everything = tuple(set(layout.units.values()))
    inner = unwrap(model)
    with mixing(model, parent, layout) as mix:

        def measure(chosen: Sequence[str]) -> dict[str, float]:
            mix(chosen)
            return {p.principle: probe_loss(inner, p) for p in probes}

        after, before = measure(()), measure(everything)
        without = [measure((unit,)) for unit in units]
        alone = [measure([u for u in everything if u != unit]) for unit in units]
    return {
        probe.principle: Exchange(
            restore=tuple(
                _nano(found[probe.principle] - after[probe.principle])
                for found in without
            ),
            insert=tuple(
                _nano(before[probe.principle] - found[probe.principle])
                for found in alone
            ),
        )
        for probe in probes
    }


def _nano(value: float) -> int:
    return round(value * BILLION)
