"""How gradients are kept inside a band, and with whom they are shared.

`toggle`: parameters outside the band need no gradient, so none is computed for them.
`clear`: all gradients are computed as usual and those outside the band are dropped
before the step. It costs time and memory, and is right where something else expects a
gradient of every parameter: DistributedDataParallel that does not look for unused
parameters, FSDP2, and gradient checkpointing of the reentrant kind.
"""

import math
import sys
from collections.abc import Iterator
from typing import Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DataParallel, DistributedDataParallel

from attest.errors import TrainingError

__all__ = [
    "Mechanism",
    "Ranks",
    "choose_mechanism",
    "named_parameters",
    "plain_name",
    "replicas",
    "unwrap",
]

Mechanism = Literal["toggle", "clear"]

# Of torch.compile and of activation checkpointing.
_WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module")


def choose_mechanism(model: nn.Module, bands: int = 1) -> Mechanism:
    """The mechanism that is exact for this model, the cheaper one where both are.

    `bands` is how many different ones there are: torch.compile makes a graph for each
    when gradients are toggled, and gives up where it would need too many.

    Raises:
        TrainingError: DeepSpeed, FSDP1 or DataParallel: they keep parameters in flat
            buffers or in copies, where a band has no meaning.
    """
    for module in (*_wrappers(model), *unwrap(model).modules()):
        kind = type(module)
        if kind.__module__.partition(".")[0] == "deepspeed":
            _refuse("DeepSpeed")
        if kind.__name__ == "FullyShardedDataParallel":
            _refuse("FSDP1 (FullyShardedDataParallel)")
        if isinstance(module, DataParallel):
            _refuse("DataParallel")
    if any(hasattr(parameter, "ds_id") for parameter in model.parameters()):
        _refuse("DeepSpeed ZeRO")
    ddp = replicas(model)
    if ddp is not None and (not ddp.find_unused_parameters or ddp.static_graph):
        return "clear"
    if _sharded(model) or _reentrant(model) or bands > _graphs(model):
        return "clear"
    return "toggle"


def unwrap(model: nn.Module) -> nn.Module:
    """The module inside DistributedDataParallel, torch.compile and PEFT.

    Adapters sit in the layers of what is inside; a PeftModel only wraps it.
    """
    return list(_wrappers(model))[-1]


def named_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters by the names that they have without wrappers.

    Those of FSDP2 are the sharded ones: what a forward left whole is sharded again.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    return {
        plain_name(name): parameter
        for name, parameter in unwrap(model).named_parameters()
    }


def plain_name(name: str) -> str:
    """A parameter's or module's name without what wrappers inside a model add to it."""
    parts = name.split(".")
    return ".".join(part for part in parts if part not in _WRAPPERS)


def replicas(model: nn.Module) -> DistributedDataParallel | None:
    """The DistributedDataParallel around a model, if there is one."""
    for module in _wrappers(model):
        if isinstance(module, DistributedDataParallel):
            return module
    return None


class Ranks:
    """The processes that train one model together; one process where it is not shared.

    Attributes:
        shared: whether gradients are reduced over several processes.
        sharded: whether every process holds a part of each tensor.
    """

    def __init__(self, model: nn.Module) -> None:
        several = dist.is_initialized() and dist.get_world_size() > 1
        self.sharded = several and _sharded(model)
        self.shared = self.sharded or (several and replicas(model) is not None)
        self._device = next(model.parameters()).device

    def all_of(self, fact: bool, number: int = 0) -> tuple[bool, bool]:  # noqa: FBT001  # a fact, not a switch
        """Whether `fact` holds on every rank, and `number` is the same on all.

        Every rank must call it; `number` fits 62 bits.
        """
        if not self.shared:
            return fact, True
        flags = torch.tensor(
            [int(fact), number, -number], dtype=torch.int64, device=self._device
        )
        dist.all_reduce(flags, op=dist.ReduceOp.MIN)
        held, least, most = flags.tolist()
        return bool(held), least == -most

    def sums(self, values: dict[str, float]) -> dict[str, float]:
        """Sums over the parts that ranks hold; all ranks have the same keys."""
        if not self.sharded:
            return values
        total = torch.tensor(
            list(values.values()), dtype=torch.float64, device=self._device
        )
        dist.all_reduce(total)
        return dict(zip(values, total.tolist(), strict=True))


def _wrappers(model: nn.Module) -> Iterator[nn.Module]:
    while True:
        yield model
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, DistributedDataParallel | DataParallel):
            inner = model.module
        if inner is None and _adapted(model):
            inner = model.get_base_model()
        if inner is None:
            return
        model = inner


def _adapted(model: nn.Module) -> bool:
    # Whoever has such a model has imported PEFT already; nobody else waits for it.
    peft = sys.modules.get("peft")
    return bool(peft and isinstance(model, peft.PeftModel | peft.PeftMixedModel))


def _sharded(model: nn.Module) -> bool:
    return any(hasattr(parameter, "to_local") for parameter in model.parameters())


def _reentrant(model: nn.Module) -> bool:
    # Such a segment gives no gradient at all where none of its inputs needs one, as
    # those of the first block in a band whose stem is frozen.
    for module in model.modules():
        function = getattr(module, "_gradient_checkpointing_func", None)
        options = getattr(function, "keywords", None) or {}
        if getattr(module, "gradient_checkpointing", False) and options.get(
            "use_reentrant"
        ):
            return True
    return False


def _graphs(model: nn.Module) -> float:
    """How many graphs of one function there may be."""
    # `compile()` in place leaves no wrapper, only this attribute.
    compiled = any(
        hasattr(module, "_orig_mod")
        or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )
    if not compiled:
        return math.inf
    return int(torch._dynamo.config.recompile_limit)  # noqa: SLF001  # its documented place


def _refuse(what: str) -> None:
    raise TrainingError(
        f"router: {what} cannot be governed: it keeps parameters in buffers of its own",
        hint="train with DistributedDataParallel or FSDP2 (fully_shard)",
    )
