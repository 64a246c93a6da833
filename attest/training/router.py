"""The router: one optimizer step changes the tensors of one principle and no other.

Setting gradients to zero does not freeze a tensor: momentum and weight decay still move
it. Here the parameters outside the band need no gradient at all during the step, and
every route has its own optimizer, so that no state leaks from one band into another.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from attest.canonical import canonical
from attest.digests import digest
from attest.errors import TrainingError
from attest.training.observer import Notes, StepObserver, watched
from attest.training.routing import Schedule

__all__ = ["MakeOptimizer", "Router", "StepOutcome", "tensor_digest"]

MakeOptimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What one optimizer step did.

    Attributes:
        clip: the factor by which the gradient was shortened; 1.0 for not at all.
        energy: sum of squares of the applied update, per unit of the route.
        frozen: digest over all tensors outside the route, None when not checked.
        notes: what observers have to say in the ledger's record of this step.
    """

    clip: float
    energy: dict[str, float]
    frozen: str | None
    notes: Notes = field(default_factory=dict)


class Router:
    """Routes optimizer steps of one model by a schedule.

        with router.route("refuse"):
            loss = model(**batch).loss
            loss.backward()          # as often as there are micro-batches
            outcome = router.step()

    After every `check_every` steps all tensors outside the routes used since the last
    check are hashed and must be what they were. Not checked: buffers, and what happens
    to the model between two steps outside of `route`.
    """

    def __init__(  # noqa: PLR0913  # what is routed, and four dials
        self,
        model: nn.Module,
        schedule: Schedule,
        make_optimizer: MakeOptimizer,
        *,
        max_norm: float = 1.0,
        check_every: int = 1,
        observers: Sequence[StepObserver] = (),
    ) -> None:
        self._parameters = dict(model.named_parameters())
        self._schedule, self._make = schedule, make_optimizer
        self._max_norm, self._check_every = max_norm, check_every
        self._observers = observers
        self._optimizers: dict[str, torch.optim.Optimizer] = {}
        self._active: str | None = None
        self._steps = 0
        self._touched: set[str] = set()
        self._known = self._digests()

    @contextmanager
    def route(self, principle: str) -> Iterator[None]:
        """Within it only the principle's tensors need a gradient.

        Gradients of an unfinished step are dropped at the end, and `requires_grad` is
        as it was.

        Raises:
            ConstitutionError: the principle has no route.
            TrainingError: inside another route.
        """
        if self._active is not None:
            raise TrainingError(f"router: still inside the route of {self._active!r}")
        band = set(self._schedule.route(principle).tensors)
        before = {n: p.requires_grad for n, p in self._parameters.items()}
        self._active = principle
        try:
            for name, parameter in self._parameters.items():
                parameter.grad = None
                parameter.requires_grad_(name in band)
            yield
        finally:
            self._active = None
            for name, parameter in self._parameters.items():
                parameter.grad = None
                parameter.requires_grad_(before[name])

    def step(self, lr: float) -> StepOutcome:
        """Clip, apply the update at rate `lr`, clear the gradients, check the rest.

        Raises:
            TrainingError: outside a route, no or a non-finite gradient (nothing was
                changed then), or a tensor outside the band changed.
        """
        if self._active is None:
            raise TrainingError("router: step() outside of route()")
        route = self._schedule.route(self._active)
        band = {name: self._parameters[name] for name in route.tensors}
        clip = self._clip(list(band.values()))
        before = {name: p.detach().clone() for name, p in band.items()}
        optimizer = self._optimizer(self._active)
        for group in optimizer.param_groups:
            group["lr"] = lr
        with watched(self._observers, self._active) as notes:
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self._steps += 1
        self._touched.update(route.tensors)
        frozen = self.check() if self._steps % self._check_every == 0 else None
        return StepOutcome(clip, self._energy(before), frozen, notes)

    def check(self) -> str:
        """Hash all tensors and compare those outside the routes since the last check.

        Returns the digest over those that were compared.

        Raises:
            TrainingError: one of them changed; names it.
        """
        found = self._digests()
        outside = [name for name in found if name not in self._touched]
        changed = [name for name in outside if found[name] != self._known[name]]
        if changed:
            raise TrainingError(
                f"confinement: {len(changed)} tensors outside the band changed, "
                f"first {changed[0]}",
                hint="something besides the router changes the model; the run stops "
                "and its ledger is kept",
            )
        self._known, self._touched = found, set()
        return digest(canonical([[name, found[name]] for name in outside]))

    def _digests(self) -> dict[str, str]:
        return {n: tensor_digest(p) for n, p in sorted(self._parameters.items())}

    def _optimizer(self, principle: str) -> torch.optim.Optimizer:
        # Keyed by the route and not by the principle: principles that share a band
        # share moments, as they would in unrouted training.
        key = ",".join(self._schedule.route(principle).tensors)
        if key not in self._optimizers:
            names = self._schedule.route(principle).tensors
            self._optimizers[key] = self._make([self._parameters[n] for n in names])
        return self._optimizers[key]

    def _clip(self, band: Sequence[nn.Parameter]) -> float:
        if all(parameter.grad is None for parameter in band):
            raise TrainingError(
                f"router: no gradient in the band of {self._active!r}",
                hint="call backward() inside route(), on a loss of this model",
            )
        norm = float(nn.utils.clip_grad_norm_(band, self._max_norm))
        if not math.isfinite(norm):
            raise TrainingError(
                f"router: the gradient of {self._active!r} is not finite",
                hint="lower the learning rate; the model is as before this step",
            )
        return min(1.0, self._max_norm / (norm + 1e-6))

    def _energy(self, before: dict[str, torch.Tensor]) -> dict[str, float]:
        energy: dict[str, float] = {}
        for name, old in before.items():
            unit = self._schedule.layout.units[name]
            change = self._parameters[name].detach().double() - old.double()
            energy[unit] = energy.get(unit, 0.0) + float(change.square().sum())
        return energy


def tensor_digest(tensor: torch.Tensor) -> str:
    """Hex SHA-256 over the raw little-endian bytes of a tensor, whatever its dtype."""
    data = tensor.detach().contiguous().cpu().flatten().view(torch.uint8)
    return hashlib.sha256(data.numpy()).hexdigest()
