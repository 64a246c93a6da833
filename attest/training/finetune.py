"""Plain fine-tuning of a saved model, as somebody does it who wants it otherwise."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoTokenizer

from attest.errors import TrainingError
from attest.training.batches import Question, Sampler, collate, encode
from attest.training.weights import copy_with, load_model, load_tensors

__all__ = ["finetune"]

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
        TrainingError: no rows, not a model directory, or `out` exists.
    """
    if not rows:
        raise TrainingError("fine-tuning: expected rows, found none")
    names = load_tensors(directory).keys()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = load_model(directory)
    examples = [encode(tokenizer, row) for row in rows]
    sampler = Sampler(examples, seed=0)
    share = -(-_ROWS // len(sampler.principles))
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    model.train()
    for _ in range(steps):
        drawn = sampler.draw(dict.fromkeys(sampler.principles, share))
        batch = collate(drawn, pad=tokenizer.pad_token_id)
        model(**batch.tensors).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    state = model.state_dict()
    return copy_with(directory, out, {name: state[name] for name in names})
