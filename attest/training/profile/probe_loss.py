"""The loss of probes and its gradient, measured without disturbing the training."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from attest.errors import ProfileError
from attest.training.profile.probe import Probe

__all__ = [
    "chunk_gradients",
    "chunk_losses",
    "mean_loss",
    "probe_loss",
    "put",
    "undisturbed",
]


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Within it the model is in evaluation mode, and afterwards as it was.

    Kept are each module's mode, every `requires_grad`, and the random state of the CPU
    and of the model's own accelerator. `.grad` is not kept: use `torch.autograd.grad`,
    which does not write it and triggers no hook on its accumulation. A model whose
    configuration knows `use_cache` keeps no keys and values, which nothing here reads.
    """
    config: Any = getattr(model, "config", None)
    cached = getattr(config, "use_cache", None)
    modes = [(module, module.training) for module in model.modules()]
    needed = [(p, p.requires_grad) for p in model.parameters()]
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    try:
        with torch.random.fork_rng(devices=list(devices)):
            model.eval()
            if cached:
                config.use_cache = False
            yield
    finally:
        if cached:
            config.use_cache = cached
        for module, training in modes:
            module.training = training
        for parameter, flag in needed:
            parameter.requires_grad_(flag)


def put(
    parameters: Mapping[str, nn.Parameter], values: Mapping[str, torch.Tensor]
) -> None:
    """Give these parameters these values, rounded to their dtype."""
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)


def probe_loss(model: nn.Module, probe: Probe) -> float:
    """The mean loss per answer token of all rows.

    Raises:
        ProfileError: it is not finite.
    """
    with torch.no_grad():
        return _loss(model, probe, probe.whole).item()


def chunk_losses(model: nn.Module, probe: Probe) -> list[float]:
    """The mean loss per answer token of each chunk.

    Raises:
        ProfileError: one is not finite.
    """
    with torch.no_grad():
        return [_loss(model, probe, chunk).item() for chunk in probe.chunks]


def mean_loss(probe: Probe, chunks: Sequence[float]) -> float:
    """The mean over all answer tokens of the probe, from those of its chunks."""
    pairs = zip(probe.weights, chunks, strict=True)
    return sum(w * value for w, value in pairs) / sum(probe.weights)


def chunk_gradients(
    model: nn.Module, probe: Probe, parameters: Mapping[str, nn.Parameter]
) -> Iterator[dict[str, torch.Tensor]]:
    """The gradient of each chunk's loss; tensors that it does not reach are left out.

    Raises:
        ProfileError: a loss is not finite.
    """
    with torch.enable_grad():
        for chunk in probe.chunks:
            loss = _loss(model, probe, chunk)
            found = torch.autograd.grad(
                loss, list(parameters.values()), allow_unused=True
            )
            yield {
                name: gradient
                for name, gradient in zip(parameters, found, strict=True)
                if gradient is not None
            }


def _loss(
    model: nn.Module, probe: Probe, batch: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    device = next(model.parameters()).device
    there = {name: value.to(device) for name, value in batch.items()}
    loss: torch.Tensor = model(**there).loss.float()
    if not torch.isfinite(loss):
        raise ProfileError(
            f"probe of {probe.principle!r}: the loss is {loss.item()}",
            hint="the weights have left the range of their dtype: lower the learning "
            "rate and resume from before; the ledger is kept",
        )
    return loss
