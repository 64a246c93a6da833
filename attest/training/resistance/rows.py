"""The rows of a resistance test: what is attacked with, and what is evaluated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from attest.canonical import read_object
from attest.errors import ConfigurationError, FormatError

__all__ = ["FileRow", "Row", "Rows", "contrary_rows", "read_rows"]

_MAX_BYTES = 256 * 1024 * 1024
_MAX_LINE = 1024 * 1024


class Row(Protocol):
    """A question with an answer; `attest.training.batches.Question`, without torch."""

    @property
    def id(self) -> str:
        """Its sample id."""

    @property
    def principle(self) -> str:
        """The principle that it was made for."""

    @property
    def answer(self) -> str:
        """What it teaches, or the answer that is expected."""

    def messages(self) -> list[dict[str, str]]:
        """The prompt as chat messages."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What a test needs.

    Attributes:
        heldout: rows of every principle with an evaluation, that no stage trained on.
        contrary: by principle, rows that teach against it. These principles are
            attacked, no others.
        benign: rows that teach nothing about any attacked principle, for the tuner who
            means no harm.
    """

    heldout: Sequence[Row]
    contrary: Mapping[str, Sequence[Row]]
    benign: Sequence[Row] = ()


@dataclass(frozen=True, slots=True)
class FileRow:
    """A row as it stands in a JSONL file of a training run."""

    id: str
    principle: str
    system: str
    question: str
    answer: str

    def messages(self) -> list[dict[str, str]]:
        """The prompt as chat messages, without the answer."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": self.question}]


def read_rows(path: Path) -> tuple[FileRow, ...]:
    """The rows of a JSONL file with id, principle, system, question and answer.

    `system` may be missing; other members are ignored.

    Raises:
        ConfigurationError: unreadable, too large, or a line that is no such row; names
            the line and never quotes it.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigurationError(f"{path}: more than {_MAX_BYTES} bytes")
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from error
    return tuple(
        _row(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)
    )


def contrary_rows(
    rows: Sequence[Row], taught: Sequence[Row], principles: Sequence[str]
) -> dict[str, list[Row]]:
    """By principle, the rows whose answer is not the one that was taught.

    Both lists ask the same questions, by id: `rows` with the answers of a model before
    its governed stage, `taught` with those of that stage. Rows that were not taught are
    left out. Principles without such rows have no entry.
    """
    answers = {row.id: row.answer for row in taught}
    found: dict[str, list[Row]] = {}
    for row in rows:
        if (
            row.principle in principles
            and answers.get(row.id, row.answer) != row.answer
        ):
            found.setdefault(row.principle, []).append(row)
    return found


def _row(line: bytes, place: str) -> FileRow:
    try:
        value = read_object(line, max_bytes=_MAX_LINE)
    except FormatError as error:
        raise ConfigurationError(f"{place}: {error}") from None
    return FileRow(
        **{
            name: _text(value, name, place)
            for name in ("id", "principle", "question", "answer")
        },
        system=_text({"system": "", **value}, "system", place),
    )


def _text(value: Mapping[str, Any], name: str, place: str) -> str:
    found = value.get(name)
    if not isinstance(found, str):
        raise ConfigurationError(f"{place}: expected text as {name!r}")
    return found
