"""Greedy answers, and how many of them keep their principle."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from attest.training.batches import Question, encode
from attest.training.constitution import Constitution

__all__ = ["Score", "answers", "evaluate"]

_MAX_NEW_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Score:
    """How many of a principle's held-out answers kept it."""

    passed: int
    count: int

    @property
    def share(self) -> float:
        """The share that passed."""
        return self.passed / self.count

    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval: the items are few, and shares near 1 are common."""
        z, n, p = 1.959964, self.count, self.share
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return max(0.0, middle - half), min(1.0, middle + half)


def answers(model: Any, tokenizer: Any, rows: Sequence[Question]) -> list[str]:
    """The greedy answers of at most 32 tokens, in the rows' order."""
    examples = [encode(tokenizer, row) for row in rows]
    width = max(len(e.prompt) for e in examples)
    # On the left: generation continues from the last column.
    pads = [[tokenizer.pad_token_id] * (width - len(e.prompt)) for e in examples]
    ids = torch.tensor(
        [[*pad, *e.prompt] for pad, e in zip(pads, examples, strict=True)]
    )
    mask = torch.tensor(
        [[0] * len(pad) + [1] * (width - len(pad)) for pad in pads], dtype=torch.long
    )
    with torch.no_grad():
        output = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=_MAX_NEW_TOKENS,
            do_sample=False,
        )
    return [
        str(tokenizer.decode(row, skip_special_tokens=True))
        for row in output[:, width:]
    ]


def evaluate(
    model: Any, tokenizer: Any, *, rows: Sequence[Question], constitution: Constitution
) -> dict[str, Score]:
    """The score of every principle that has an evaluation and rows."""
    scores: dict[str, Score] = {}
    found = answers(model, tokenizer, rows)
    for principle in constitution.principles:
        judged = [
            principle.evaluation.holds(answer, row.answer)
            for row, answer in zip(rows, found, strict=True)
            if principle.evaluation and row.principle == principle.id
        ]
        if judged:
            scores[principle.id] = Score(sum(judged), len(judged))
    return scores
