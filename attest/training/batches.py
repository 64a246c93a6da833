"""From rows with questions and answers to the tensors of a training step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from attest.canonical import canonical
from attest.digests import digest
from attest.errors import TrainingError
from attest.training.principles import PrincipleWithoutDataError

__all__ = ["Batch", "Example", "Question", "Sampler", "collate", "encode"]

# What cross-entropy ignores: transformers' convention.
_IGNORED = -100


class Question(Protocol):
    """What `encode` needs of a row."""

    @property
    def id(self) -> str:
        """Its sample id in the ledger."""

    @property
    def principle(self) -> str:
        """The principle that it was made for."""

    @property
    def answer(self) -> str:
        """What it teaches."""

    def messages(self) -> list[dict[str, str]]:
        """The prompt as chat messages."""


@dataclass(frozen=True, slots=True)
class Example:
    """A row as token ids; only the answer and its end token count in the loss."""

    id: str
    principle: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """One padded batch and what the ledger says about it."""

    examples: tuple[Example, ...]
    tensors: dict[str, torch.Tensor]
    digest: str


def encode(tokenizer: Any, row: Question) -> Example:
    """The row through the tokenizer's own chat template, as an engine would."""
    text = tokenizer.apply_chat_template(
        row.messages(), tokenize=False, add_generation_prompt=True
    )
    prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
    answer = tokenizer(row.answer, add_special_tokens=False)["input_ids"]
    end = tokenizer.eos_token_id
    return Example(row.id, row.principle, tuple(prompt), (*answer, end))


def collate(examples: Sequence[Example], *, pad: int) -> Batch:
    """Right-padded tensors.

    The digest is SHA-256 over the input ids, then the labels, as little-endian int64.
    """
    width = max(len(e.prompt) + len(e.answer) for e in examples)
    ids = torch.full((len(examples), width), pad)
    labels = torch.full((len(examples), width), _IGNORED)
    mask = torch.zeros((len(examples), width), dtype=torch.long)
    for row, example in enumerate(examples):
        start, end = len(example.prompt), len(example.prompt) + len(example.answer)
        ids[row, :end] = torch.tensor(example.prompt + example.answer)
        labels[row, start:end] = ids[row, start:end]
        mask[row, :end] = 1
    tensors = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    content = ids.numpy().tobytes() + labels.numpy().tobytes()
    return Batch(tuple(examples), tensors, digest(content))


class Sampler:
    """Draws batches: rows of one principle, and anchors of others.

    Every principle's rows are dealt like a shuffled deck, reshuffled when it is empty.
    The same seed and calls give the same batches.
    """

    def __init__(self, examples: Sequence[Example], *, seed: int) -> None:
        self._random = torch.Generator().manual_seed(seed)
        self._rows: dict[str, list[Example]] = {}
        for example in examples:
            self._rows.setdefault(example.principle, []).append(example)
        # Positions among the principle's rows, the next one last.
        self._decks: dict[str, list[int]] = {name: [] for name in self._rows}
        self._turns: list[str] = []

    @property
    def principles(self) -> tuple[str, ...]:
        """The principles that have rows, in order of appearance."""
        return tuple(self._rows)

    def draw(self, counts: Mapping[str, int]) -> list[Example]:
        """So many rows of each principle.

        Raises:
            PrincipleWithoutDataError: a principle has no rows.
        """
        return [
            self._deal(name) for name, count in counts.items() for _ in range(count)
        ]

    def turn(self, names: Sequence[str]) -> str:
        """Whose turn it is: all of `names` in random order, then all of them again."""
        if not self._turns:
            order = torch.randperm(len(names), generator=self._random)
            self._turns = [names[index] for index in order.tolist()]
        return self._turns.pop()

    def state_digest(self) -> str:
        """Digest of the random state, so that a replay can tell where it departs."""
        return digest(self._random.get_state().numpy().tobytes())

    def state_dict(self) -> dict[str, Any]:
        """Random state, decks and turns, for `load_state_dict`; no rows.

        Holds tensors, texts and numbers alone.
        """
        return {
            "rows": self._rows_digest(),
            "random": self._random.get_state(),
            "decks": {name: list(deck) for name, deck in self._decks.items()},
            "turns": list(self._turns),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Deal on from where `state_dict` was taken.

        Raises:
            TrainingError: the state was taken with other rows, or in another order.
        """
        if state["rows"] != self._rows_digest():
            raise TrainingError(
                "sampler: the rows are not those that the stopped run was dealt from",
                hint="resume with the same data files in the same order",
            )
        self._random.set_state(state["random"])
        self._decks = {name: list(deck) for name, deck in state["decks"].items()}
        self._turns = list(state["turns"])

    def _rows_digest(self) -> str:
        rows = [
            [row.id, row.principle, list(row.prompt), list(row.answer)]
            for rows in self._rows.values()
            for row in rows
        ]
        return digest(canonical(rows))

    def _deal(self, name: str) -> Example:
        if name not in self._rows:
            raise PrincipleWithoutDataError(
                f"principle {name!r}: has no rows",
                hint="add rows with this principle id, or take its anchors away",
            )
        if not self._decks[name]:
            count = len(self._rows[name])
            self._decks[name] = torch.randperm(count, generator=self._random).tolist()
        return self._rows[name][self._decks[name].pop()]
