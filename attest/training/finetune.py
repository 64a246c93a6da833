"""Plain fine-tuning of a saved model, as somebody does it who wants it otherwise."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer

from attest.errors import TrainingError
from attest.training.batches import Example, Question, Sampler, collate, encode
from attest.training.weights import copy_with, load_model, load_tensors

__all__ = ["finetune", "tune"]

_ROWS = 12


def finetune(
    directory: Path,
    out: Path,
    *,
    rows: Sequence[Question],
    steps: int = 20,
    lr: float = 1e-3,
) -> Path:
    """Train every tensor on `rows` with AdamW and save the result; returns `out`.

    All files but the weights are copied byte for byte. No ledger is written: this is
    the tuner who says nothing.

    Raises:
        TrainingError: no rows, not a model directory, `out` exists, or the loss is not
            finite.
    """
    names = load_tensors(directory).keys()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = load_model(directory)
    examples = [encode(tokenizer, row) for row in rows]
    losses = tune(model, examples, rate=lr, rows=_ROWS, pad=tokenizer.pad_token_id)
    for _, loss in zip(range(steps), losses, strict=False):
        if not math.isfinite(loss):
            raise TrainingError(
                f"fine-tuning at rate {lr:g}: the loss is {loss}",
                hint="lower the learning rate; nothing was written",
            )
    state = model.state_dict()
    return copy_with(directory, out, {name: state[name] for name in names})


def tune(  # noqa: PLR0913  # what is tuned, and how
    model: nn.Module,
    examples: Sequence[Example],
    *,
    rate: float,
    rows: int,
    pad: int,
    seed: int = 0,
    momentum: float | None = None,
) -> Iterator[float]:
    """Train what needs a gradient, one step per item; yields the step's loss.

    AdamW without decay, or SGD where a momentum is given; a constant rate, no clipping.
    A batch has `rows` rows, spread evenly over the principles that `examples` carry.
    Endless, unless the loss or the gradient is not finite: then the step is not
    applied, and NaN is the last item.

    Raises:
        TrainingError: no examples, or nothing needs a gradient.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not examples or not parameters:
        what = "tensors to train" if examples else "rows"
        raise TrainingError(f"fine-tuning: expected {what}, found none")
    sampler = Sampler(examples, seed=seed)
    share = -(-rows // len(sampler.principles))
    optimizer: torch.optim.Optimizer
    if momentum is None:
        optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    else:
        optimizer = torch.optim.SGD(parameters, lr=rate, momentum=momentum)
    model.train()
    while True:
        batch = collate(sampler.draw(dict.fromkeys(sampler.principles, share)), pad=pad)
        loss = model(**_moved(batch.tensors, parameters[0].device)).loss
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, math.inf)
        if not torch.isfinite(loss + norm):
            yield math.nan
            return
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield loss.item()
        # The caller may have evaluated in between.
        model.train()


def _moved(tensors: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}
