"""The router: one optimizer step changes the tensors of one principle and no other.

Setting gradients to zero does not freeze a tensor: momentum and weight decay still move
it. Here no gradient outside the band reaches an optimizer, and every route has its own
optimizer, so that no state leaks from one band into another.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from attest.canonical import canonical
from attest.digests import digest
from attest.errors import TrainingError
from attest.training.confinement import (
    Watch,
    checksums,
    digests,
    joint_digest,
    tensor_digest,
)
from attest.training.energy import Update
from attest.training.mechanism import (
    Mechanism,
    Ranks,
    choose_mechanism,
    named_parameters,
)
from attest.training.observer import StepObserver, watched
from attest.training.outcome import NonFiniteError, StepOutcome
from attest.training.routing import Schedule

__all__ = [
    "MakeOptimizer",
    "NonFiniteError",
    "Router",
    "StepOutcome",
    "tensor_digest",
    "total_norm",
]

MakeOptimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


class Router:
    """Routes optimizer steps of one model by a schedule.

        with router.route("refuse"):
            loss = model(**batch).loss
            loss.backward()          # as often as there are micro-batches
            outcome = router.step(1e-4)

    Trained are those tensors of a route that need a gradient when the router is made,
    so a LoRA model trains the adapters in the band alone. Around every step all other
    tensors are measured and must be what they were: with SHA-256 at every step whose
    number `check_every` divides, with a checksum at the others. Not checked: buffers,
    and changes between two steps to a tensor that the second one trains.

    Under DistributedDataParallel and FSDP2 all ranks make the same calls; of a sharded
    tensor every rank measures its own part.

    Attributes:
        model: as it was given, with its wrappers.
        parameters: all of its tensors by the names that the schedule has for them.
        mechanism: how gradients are kept inside; see `attest.training.mechanism`.
        ranks: the processes that train together.
        schedule: what each principle may change.
    """

    def __init__(  # noqa: PLR0913  # what is routed, and five dials
        self,
        model: nn.Module,
        schedule: Schedule,
        make_optimizer: MakeOptimizer,
        *,
        max_norm: float | None = 1.0,
        check_every: int = 1,
        observers: Sequence[StepObserver] = (),
        mechanism: Mechanism | None = None,
    ) -> None:
        """Prepare; `max_norm` None clips nothing, `mechanism` None chooses.

        Raises:
            TrainingError: a wrapper that cannot be governed, or a schedule that was
                compiled for another model.
        """
        self.model = model
        bands = {route.tensors for route in schedule.routes.values()}
        self.mechanism = mechanism or choose_mechanism(model, len(bands))
        self.ranks = Ranks(model)
        self.parameters = named_parameters(model)
        self.schedule, self._make = schedule, make_optimizer
        self._check_names()
        self._max_norm, self._check_every = max_norm, max(1, check_every)
        self._observers = observers
        self._trained = {n for n, p in self.parameters.items() if p.requires_grad}
        self._optimizers: dict[str, torch.optim.Optimizer] = {}
        self._keys: dict[str, str] = {}
        self._update = Update(schedule.layout.units)
        self._active: str | None = None
        self._band: dict[str, nn.Parameter] = {}
        self._needed: dict[str, bool] = {}
        self._steps = 0
        self._hashes = Watch(digests, self.parameters)
        self._sums = Watch(checksums, self.parameters)
        self._hashes.prepare(self.parameters)

    @property
    def steps(self) -> int:
        """How many optimizer steps were made."""
        return self._steps

    @property
    def active(self) -> str | None:
        """The principle whose route was entered and not left."""
        return self._active

    def trained(self, principle: str) -> tuple[str, ...]:
        """The tensors that a step for this principle changes, in the route's order.

        Raises:
            ConstitutionError: the principle has no route.
            TrainingError: none of its tensors needs a gradient.
        """
        route = self.schedule.route(principle)
        names = tuple(name for name in route.tensors if name in self._trained)
        if not names:
            raise TrainingError(
                f"router: no tensor in the band of {principle!r} can be trained",
                hint="let adapters reach its layers, or unfreeze them, before the "
                "router is made",
            )
        return names

    @contextmanager
    def route(self, principle: str) -> Iterator[None]:
        """Within it only the principle's tensors are trained.

        Gradients of an unfinished step are dropped at the end, and `requires_grad` is
        as it was.

        Raises:
            ConstitutionError: the principle has no route.
            TrainingError: inside another route, or nothing in the band can be trained.
        """
        self.enter(principle)
        try:
            yield
        finally:
            self.leave()

    def enter(self, principle: str) -> None:
        """Begin what `route` begins; the caller sees to it that `leave` is called."""
        if self._active is not None:
            raise TrainingError(f"router: still inside the route of {self._active!r}")
        band = {name: self.parameters[name] for name in self.trained(principle)}
        self._active, self._band = principle, band
        self._needed = {n: p.requires_grad for n, p in self.parameters.items()}
        self._watch().prepare(self._outside())
        for name, parameter in self.parameters.items():
            parameter.grad = None
            if self.mechanism == "toggle":
                parameter.requires_grad_(name in band)

    def leave(self) -> None:
        """End the route; does nothing outside of one."""
        if self._active is None:
            return
        self._active, self._band = None, {}
        for name, parameter in self.parameters.items():
            parameter.grad = None
            parameter.requires_grad_(self._needed[name])

    def norm(self) -> float:
        """The norm of the band's gradient, over all ranks; drops all other gradients.

        Raises:
            TrainingError: outside a route, or there is no gradient.
            NonFiniteError: it is not finite, on whichever rank.
        """
        if self._active is None:
            raise TrainingError("router: step() outside of route()")
        for name in self._outside():
            self.parameters[name].grad = None
        gradients = [p.grad for p in self._band.values() if p.grad is not None]
        if not gradients:
            raise TrainingError(
                f"router: no gradient in the band of {self._active!r}",
                hint="call backward() inside route(), on a loss of this model; with "
                "gradient checkpointing use use_reentrant=False",
            )
        norm = total_norm(gradients)
        self._agree(math.isfinite(norm))
        return norm

    def step(self, lr: float) -> StepOutcome:
        """Clip, apply the update at rate `lr`, clear the gradients, check the rest.

        Raises:
            TrainingError: outside a route, no gradient, or ranks in different routes.
            NonFiniteError: the gradient is not finite. Nothing was changed then.
            ConfinementError: a tensor outside the band changed.
        """
        norm = self.norm()
        clip = 1.0
        if self._max_norm is not None:
            nn.utils.clip_grads_with_norm_(
                self._band.values(), self._max_norm, torch.tensor(norm)
            )
            clip = min(1.0, self._max_norm / (norm + 1e-6))
        self._update.before(self._band)
        optimizer = self._optimizer(str(self._active))
        for group in optimizer.param_groups:
            group["lr"] = lr
        watch, outside = self._watch(), self._outside()
        with watched(self._observers, self._active) as notes:
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self._steps += 1
        for each in (self._hashes, self._sums):
            each.release(self._band)
        found = watch.verify(outside)
        energy = self.ranks.sums(self._update.energy(self._band))
        if watch is self._hashes:
            return StepOutcome(clip, energy, joint_digest(found), 0, notes)
        return StepOutcome(clip, energy, None, len(found), notes)

    def check(self) -> str:
        """Hash all tensors; those that no step could change must be what they were.

        Returns the joint digest over all of them: the weights as they now are.

        Raises:
            ConfinementError: one of them changed since it was last hashed; names it.
        """
        self._hashes.verify()
        self._hashes.prepare(self.parameters)
        return joint_digest(self._hashes.known())

    def check_record(self, place: Mapping[str, Any]) -> dict[str, Any]:
        """`check`, as a record of kind `check` for the ledger.

        `unchanged` counts the tensors that were compared, `weights` is the joint digest
        of all. `place` says where in the run: `stage` and `step`.

        Raises:
            ConfinementError: as `check`.
        """
        unchanged, weights = len(self._hashes.known()), self.check()
        return {
            "kind": "check",
            **place,
            "unchanged": unchanged,
            "weights": weights,
            **self.report(),
        }

    def report(self) -> dict[str, Any]:
        """How confinement was kept and watched, for a ledger record or a statement."""
        return {
            "mechanism": self.mechanism,
            "optimizerState": "per-route",
            "checkEvery": self._check_every,
        }

    def state_dict(self) -> dict[str, Any]:
        """Steps, optimizers and the digest of every tensor; no weights.

        Holds tensors, texts and numbers alone, so `torch.load(weights_only=True)` reads
        it. Hashes the whole model.
        """
        self.check()
        return {
            "schedule": self.schedule.digest,
            "steps": self._steps,
            "optimizers": {k: o.state_dict() for k, o in self._optimizers.items()},
            "weights": self._hashes.known(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`; the model has its weights of then already.

        Raises:
            TrainingError: the state of another schedule.
            ConfinementError: the weights are not those of then; names the first.
        """
        if state["schedule"] != self.schedule.digest:
            raise TrainingError(
                f"router: expected the state of schedule {self.schedule.digest}, "
                f"found that of {state['schedule']}",
                hint="resume with the constitution and the model of the stopped run",
            )
        if state["weights"].keys() != self.parameters.keys():
            raise TrainingError("router: the state is that of a model of other tensors")
        self._hashes = Watch(digests, self.parameters, known=state["weights"])
        self._hashes.verify()
        self._sums = Watch(checksums, self.parameters)
        self._steps = int(state["steps"])
        for principle in self.schedule.routes:
            saved = state["optimizers"].get(self._key(principle))
            if saved is not None:
                self._optimizer(principle).load_state_dict(saved)

    def _outside(self) -> list[str]:
        return [name for name in self.parameters if name not in self._band]

    def _watch(self) -> Watch:
        due = (self._steps + 1) % self._check_every == 0
        return self._hashes if due else self._sums

    def _key(self, principle: str) -> str:
        # Keyed by the tensors and not by the principle: principles that share a band
        # share moments, as they would in unrouted training.
        if principle not in self._keys:
            self._keys[principle] = digest(canonical(list(self.trained(principle))))
        return self._keys[principle]

    def _optimizer(self, principle: str) -> torch.optim.Optimizer:
        key = self._key(principle)
        if key not in self._optimizers:
            names = self.trained(principle)
            self._optimizers[key] = self._make([self.parameters[n] for n in names])
        return self._optimizers[key]

    def _agree(self, finite: bool) -> None:  # noqa: FBT001  # a fact, not a switch
        route = self.schedule.route(str(self._active)).digest
        finite, same = self.ranks.all_of(finite, int(route[7:22], 16))
        if not same:
            raise TrainingError(
                f"router: this rank trains {self._active!r} and another one does not",
                hint="give every rank rows of the same principle, or use MixedWindow",
            )
        if not finite:
            raise NonFiniteError(
                f"router: the gradient of {self._active!r} is not finite",
                hint="lower the learning rate; the model is as before this step",
            )

    def _check_names(self) -> None:
        routes = self.schedule.routes.values()
        strange = {n for r in routes for n in r.tensors} - self.parameters.keys()
        if strange:
            raise TrainingError(
                f"router: the schedule names {min(strange)}, which this model lacks",
                hint="compile the schedule against this very model, adapters included",
            )


def total_norm(gradients: Sequence[torch.Tensor]) -> float:
    """The Euclidean norm over all of them, shards on other ranks included."""
    norm: Any = nn.utils.get_total_norm(gradients)
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
