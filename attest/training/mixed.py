"""Batches whose rows belong to several principles, in one optimizer step.

Every row's gradient reaches the band of its own principle and nothing else. The rows
are grouped by principle and each group has a forward and a backward of its own, so no
layer needs a special backward and any model will do; the sum of the groups is what
per-row masks in one pass would give.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist

from attest.errors import TrainingError
from attest.training.mechanism import replicas
from attest.training.router import NonFiniteError, Router, StepOutcome, total_norm

__all__ = ["MixedWindow", "select_rows"]


class MixedWindow:
    """One optimizer step from rows of several principles.

        window = MixedWindow(router)
        for principle, rows in groups:
            with window.part(principle):
                (model(**rows).loss * share).backward()
        outcomes = window.step(1e-4)

    All gradients are taken at the same weights. Then each principle's own optimizer
    makes one step with its own gradient, clipped on its own, in the order of the
    schedule: where bands overlap, the shared tensors get the updates of all. It equals
    steps of one principle each, but for the weights at which the later ones took their
    gradients; with SGD without momentum and clipping it is one step with the sum.

    Under DistributedDataParallel the ranks may hold different principles; gradients are
    averaged over all ranks at `step`. Under FSDP2 every rank makes the same parts in
    the same order.
    """

    def __init__(self, router: Router) -> None:
        self._router = router
        self._ddp = replicas(router.model)
        self._gradients: dict[str, dict[str, torch.Tensor]] = {}

    @contextmanager
    def part(self, principle: str) -> Iterator[None]:
        """Gradients taken within it add to those of this principle.

        Raises:
            ConstitutionError: the principle has no route.
            TrainingError: inside a route.
        """
        router, kept = self._router, self._gradients.setdefault(principle, {})
        parameters = router.parameters
        with (
            router.route(principle),
            self._ddp.no_sync() if self._ddp else nullcontext(),
        ):
            for name, gradient in kept.items():
                parameters[name].grad = gradient
            yield
            for name in router.trained(principle):
                gradient = parameters[name].grad
                if gradient is not None:
                    kept[name] = gradient

    def step(self, lr: float) -> dict[str, StepOutcome]:
        """Make the steps; the window is empty again.

        Raises:
            TrainingError: no part was made.
            NonFiniteError: a gradient is not finite; nothing was changed.
            ConfinementError: a tensor outside a band changed.
        """
        router, waiting = self._router, self._gradients
        self._gradients = {}
        if self._ddp is not None and router.ranks.shared:
            waiting = self._averaged(waiting)
        order = [name for name in router.schedule.routes if waiting.get(name)]
        if not order:
            raise TrainingError(
                "router: no gradient in any part", hint="call backward() inside part()"
            )
        finite = all(
            math.isfinite(total_norm(list(waiting[name].values()))) for name in order
        )
        if not router.ranks.all_of(finite)[0]:
            raise NonFiniteError(
                f"router: a gradient of {', '.join(order)} is not finite",
                hint="lower the learning rate; the model is as before this step",
            )
        outcomes = {}
        for principle in order:
            with router.route(principle):
                for name, gradient in waiting.pop(principle).items():
                    router.parameters[name].grad = gradient
                outcomes[principle] = router.step(lr)
        return outcomes

    def _averaged(
        self, mine: Mapping[str, Mapping[str, torch.Tensor]]
    ) -> dict[str, dict[str, torch.Tensor]]:
        """Means over the ranks; a rank without rows of a principle counts as zero."""
        world = dist.get_world_size()
        everybody: list[Any] = [None] * world
        dist.all_gather_object(everybody, sorted(name for name in mine if mine[name]))
        wanted = {name for names in everybody for name in names}
        means: dict[str, dict[str, torch.Tensor]] = {}
        for principle in self._router.schedule.routes:
            if principle not in wanted:
                continue
            means[principle] = {}
            for name in self._router.trained(principle):
                found = mine.get(principle, {}).get(name)
                if found is None:
                    found = torch.zeros_like(self._router.parameters[name])
                dist.all_reduce(found)
                means[principle][name] = found.div_(world)
        return means


def select_rows(
    batch: Mapping[str, Any], rows: Sequence[int], total: int
) -> dict[str, Any]:
    """Some of the `total` rows of a batch.

    A tensor whose first dimension is k times `total` holds k blocks of rows, as the
    chosen and the rejected answers of preference pairs; the rows are taken from each.
    Numbers and None are kept.

    Raises:
        TrainingError: a tensor or list of another length, as of a batch without
            padding.
    """
    chosen: dict[str, Any] = {}
    for name, value in batch.items():
        if isinstance(value, torch.Tensor) and value.ndim:
            blocks = value.shape[0] // total
            if value.shape[0] != blocks * total:
                _cannot_split(name, total, value.shape[0])
            index = [block * total + row for block in range(blocks) for row in rows]
            chosen[name] = value[torch.tensor(index, device=value.device)]
        elif isinstance(value, list):
            if len(value) != total:
                _cannot_split(name, total, len(value))
            chosen[name] = [value[row] for row in rows]
        else:
            chosen[name] = value
    return chosen


def _cannot_split(name: str, total: int, found: int) -> None:
    raise TrainingError(
        f"batch: expected {total} rows or a multiple in {name!r}, found {found}",
        hint="keep rows apart: no packing and no padding-free batches where a batch "
        "holds several principles",
    )
