"""One forward of a model on dummy tokens: in which order it uses its tensors.

Seen are the operations that get a tensor itself and, for tensors that no operation was
seen to get (a fused kernel, a shard), the calls of the modules that own them.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["tensor_uses"]

# Two ids that every vocabulary has, twice: convolutions and chunks see a sequence.
_IDS = (0, 1, 0, 1)

_VALUE = torch.ops.aten._local_scalar_dense.default  # noqa: SLF001  # `Tensor.item()`
_INDICES = torch.ops.aten.nonzero.default


def tensor_uses(model: nn.Module, tensors: Mapping[str, nn.Parameter]) -> list[str]:
    """The names of `tensors` in the order of their use, repeated for every use.

    The model runs as it is, on its device, in evaluation mode and without gradients,
    once, with its own hooks. Its mode, its hooks and the random state are then as they
    were. What was compiled runs uncompiled: torch leaves it alone under a dispatch
    mode. Not restored: what the forward itself writes to buffers. On the meta device
    nothing is computed; a question about a value is answered by 0, and a search for
    indices finds none.

    Raises:
        Exception: whatever the forward raises.
    """
    names = {id(parameter): name for name, parameter in tensors.items()}
    operations, calls = _Recorder(names), list[tuple[int, str]]()
    device = next(iter(tensors.values())).device
    ids = torch.tensor([_IDS], device=device)
    with _as_found(model, tensors), torch.no_grad():
        hooks = _watch_calls(model, names, lambda name: _note(operations, calls, name))
        try:
            with operations:
                model(**_arguments(model, ids))
        finally:
            for hook in hooks:
                hook.remove()
    seen = {name for _, name in operations.uses}
    uses = operations.uses + [use for use in calls if use[1] not in seen]
    return [name for _, name in sorted(uses, key=lambda use: use[0])]


class _Recorder(TorchDispatchMode):
    """Notes every operation that gets one of the tensors, with a running number."""

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self._names, self.clock = names, 0
        self.uses: list[tuple[int, str]] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        self.clock += 1
        for leaf in tree_leaves((args, kwargs)):
            name = self._names.get(id(leaf))
            if name is not None:
                self.uses.append((self.clock, name))
        if args and isinstance(args[0], torch.Tensor) and args[0].is_meta:
            value = args[0]
            if func is _VALUE:
                return torch.zeros((), dtype=value.dtype, device="cpu").item()
            if func is _INDICES:
                return value.new_empty((0, value.dim()), dtype=torch.long)
        return func(*args, **(kwargs or {}))


def _note(recorder: _Recorder, calls: list[tuple[int, str]], name: str) -> None:
    recorder.clock += 1
    calls.append((recorder.clock, name))


def _watch_calls(model: nn.Module, names: Mapping[int, str], note: Any) -> list[Any]:
    hooks = []
    for module in model.modules():
        own = [names[id(p)] for p in module.parameters(recurse=False) if id(p) in names]
        if own:

            def hook(_module: Any, _args: Any, own: Sequence[str] = own) -> None:
                for name in own:
                    note(name)

            hooks.append(module.register_forward_pre_hook(hook))
    return hooks


def _arguments(model: nn.Module, ids: torch.Tensor) -> dict[str, Any]:
    names = inspect.signature(model.forward).parameters
    first = "input_ids" if "input_ids" in names else next(iter(names), "input_ids")
    return {first: ids} | ({"use_cache": False} if "use_cache" in names else {})


@contextmanager
def _as_found(model: nn.Module, tensors: Mapping[str, nn.Parameter]) -> Iterator[None]:
    cuda = {p.device.index for p in tensors.values() if p.device.type == "cuda"}
    modes = [(module, module.training) for module in model.modules()]
    with torch.random.fork_rng(devices=sorted(cuda)):
        try:
            for module, _ in modes:
                module.training = False
            yield
        finally:
            for module, mode in modes:
                module.training = mode
