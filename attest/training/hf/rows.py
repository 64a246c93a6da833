"""What a batch was made of: which rows, for which principles, with which tensors."""

import hashlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from attest.canonical import canonical
from attest.digests import digest
from attest.errors import TrainingError
from attest.training.confinement import tensor_digest
from attest.training.record import Fed

__all__ = ["ID", "PRINCIPLE", "Feed", "Row", "Tagged", "row_of", "rows_of"]

# Columns of the data set.
PRINCIPLE, ID = "principle", "id"

Row = tuple[str, str]


def row_of(example: Mapping[str, Any]) -> Row:
    """Sample id and principle of a row.

    Raises:
        TrainingError: the row lacks one.
    """
    _check_columns(example)
    return str(example[ID]), str(example[PRINCIPLE])


def rows_of(dataset: Any) -> list[Row]:
    """Sample ids and principles of a whole data set that can be indexed.

    Raises:
        TrainingError: it lacks one of the columns.
    """
    if not hasattr(dataset, "column_names"):
        return [row_of(dataset[number]) for number in range(len(dataset))]
    _check_columns(dataset.column_names)
    columns = map(str, dataset[ID]), map(str, dataset[PRINCIPLE])
    return list(zip(*columns, strict=True))


@dataclass(frozen=True, slots=True)
class Tagged:
    """A collator that keeps ids and principles beside the tensors."""

    collate: Callable[[list[dict[str, Any]]], Any]

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> Any:
        """As the collator itself, and the columns as plain lists."""
        rows = [row_of(example) for example in examples]
        batch = self.collate(
            [
                {k: v for k, v in example.items() if k not in (ID, PRINCIPLE)}
                for example in examples
            ]
        )
        batch[ID] = [row[0] for row in rows]
        batch[PRINCIPLE] = [row[1] for row in rows]
        return batch


class Feed:
    """What one step of one principle was given, gathered over its micro-batches."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._digests: list[str] = []
        self._loss: torch.Tensor | float = 0.0

    def add_rows(self, rows: Sequence[Row]) -> None:
        """More rows."""
        self._rows += rows

    def add_tensors(self, batch: Mapping[str, Any]) -> None:
        """The tensors of a micro-batch, as the loss was computed of them."""
        described = [
            [name, str(value.dtype), list(value.shape), tensor_digest(value)]
            for name, value in sorted(batch.items())
            if isinstance(value, torch.Tensor)
        ]
        self._digests.append(hashlib.sha256(canonical(described)).hexdigest())

    def add_loss(self, loss: torch.Tensor) -> None:
        """Its share of the loss, as the gradient was taken of it."""
        self._loss = self._loss + loss.detach().float()

    def not_finite(self) -> list[str]:
        """The sample ids, if the loss is not a finite number."""
        if math.isfinite(float(self._loss)):
            return []
        return [row[0] for row in self._rows]

    def fed(self) -> Fed:
        """All of it, for the ledger.

        The batch digest is over the micro-batches' digests in their order, each of
        which is over names, types, shapes and contents of its tensors.
        """
        return Fed(
            [row[0] for row in self._rows],
            [row[1] for row in self._rows],
            digest(canonical(self._digests)),
            float(self._loss),
        )


def _check_columns(found: Collection[str]) -> None:
    for column in (ID, PRINCIPLE):
        if column not in found:
            raise TrainingError(
                f"data set: expected a column {column!r}, found "
                f"{', '.join(sorted(found))}",
                hint="give every row the id that the ledger shall name, and its "
                "principle's id; packing loses both",
            )
