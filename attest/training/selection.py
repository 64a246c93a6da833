"""Which principle a row of training data was made for."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attest.canonical import read_object
from attest.errors import ConfigurationError, ConstitutionError, FormatError
from attest.training.constitution import (
    Constitution,
    Principle,
    PrincipleWithoutDataError,
    UnknownPrincipleError,
)
from attest.training.routing import anchor_counts

__all__ = ["AmbiguousRowError", "Survey", "drawn", "principle_of", "survey"]

# A row of 128,000 tokens is half a megabyte of text.
_MAX_ROW = 16 * 1024 * 1024
# Longer ones are no ids, and may be text that no message should quote.
_MAX_ID = 64


class AmbiguousRowError(ConstitutionError):
    """A row belongs to two principles, so its step could be counted for neither."""

    code = "ambiguous_row"


@dataclass(frozen=True, slots=True)
class Survey:
    """How many rows of a data directory belong to whom.

    Attributes:
        rows: for training, by principle and then by file.
        heldout: for the evaluation of a principle that has one.
        unselected: rows that belong to no principle, by file.
    """

    rows: Mapping[str, Mapping[str, int]]
    heldout: Mapping[str, int]
    unselected: Mapping[str, int]


def principle_of(
    constitution: Constitution, row: Mapping[str, Any], *, file: str = ""
) -> str:
    """The id of the principle that a row belongs to.

    `file` is the row's path below the data directory; without it, selectors that name
    files select nothing.

    Raises:
        UnknownPrincipleError: it belongs to none.
        AmbiguousRowError: it belongs to two.
    """
    found = _find(constitution, row, file)
    if found is None:
        raise UnknownPrincipleError(
            "a row belongs to no principle",
            hint="give it a member principle with the id of one, or let the data of a "
            "principle select it",
        )
    return found


def drawn(constitution: Constitution) -> tuple[Principle, ...]:
    """The principles whose rows training draws: the routed ones and their anchors."""
    needed = {p.id for p in constitution.routed}
    for principle in constitution.routed:
        needed.update(anchor_counts(principle, constitution))
    return tuple(p for p in constitution.principles if p.id in needed)


def survey(constitution: Constitution, directory: Path) -> Survey:
    """Count the rows of a data directory by principle.

    Read are the files that a selector names and every `*.jsonl` directly in the
    directory, but for the held-out ones: one JSON object a line.

    Raises:
        PrincipleWithoutDataError: training draws rows of a principle, or an evaluation
            asks for them, and there are none.
        UnknownPrincipleError: a row names a principle that there is not.
        AmbiguousRowError: a row belongs to two.
        ConfigurationError: a file cannot be read, or a line is not a JSON object.
    """
    rows: dict[str, dict[str, int]] = {p.id: {} for p in constitution.principles}
    unselected: dict[str, int] = {}
    for file in _training_files(constitution, directory):
        for number, row in _read(directory, file):
            try:
                found = _find(constitution, row, file)
            except ConstitutionError as error:
                where = f"{file}, line {number}: {error}"
                raise type(error)(where, hint=error.hint) from error
            counts = unselected if found is None else rows[found]
            counts[file] = counts.get(file, 0) + 1
    for principle in drawn(constitution):
        if not rows[principle.id]:
            raise PrincipleWithoutDataError(
                f"principle {principle.id!r}: expected rows to train on in "
                f"{directory}, found none",
                hint=_remedy(principle),
            )
    return Survey(rows, _heldout(constitution, directory), unselected)


def _find(constitution: Constitution, row: Mapping[str, Any], file: str) -> str | None:
    found = [p.id for p in constitution.principles if p.selector.matches(row, file)]
    if len(found) > 1:
        raise AmbiguousRowError(
            f"a row belongs to {found[0]} and to {found[1]}",
            hint="narrow the data of one of them, or correct the row's principle",
        )
    if found:
        return found[0]
    named = row.get("principle")
    if isinstance(named, str) and len(named) <= _MAX_ID:
        constitution.principle(named)  # raises for one that there is not
    elif named is not None:
        raise UnknownPrincipleError(
            "a row's principle is no id", hint="correct it, or select by other members"
        )
    return None


def _training_files(constitution: Constitution, directory: Path) -> list[str]:
    heldout = {p.evaluation.heldout for p in constitution.principles if p.evaluation}
    named = {file for p in constitution.principles for file in p.selector.files}
    try:
        present = {path.name for path in directory.iterdir() if path.is_file()}
    except OSError as error:
        raise ConfigurationError(
            f"{directory}: cannot be read: {error.strerror}",
            hint="give the directory that holds the JSONL files",
        ) from error
    lines = {name for name in present if name.endswith(".jsonl")}
    return sorted((named | lines) - heldout)


def _heldout(constitution: Constitution, directory: Path) -> dict[str, int]:
    judged = [(p, p.evaluation) for p in constitution.principles if p.evaluation]
    counts = {principle.id: 0 for principle, _ in judged}
    for file in sorted({evaluation.heldout for _, evaluation in judged}):
        using = [p for p, evaluation in judged if evaluation.heldout == file]
        for _, row in _read(directory, file):
            for principle in using:
                counts[principle.id] += principle.selector.describes(row)
    for principle, evaluation in judged:
        if not counts[principle.id]:
            raise PrincipleWithoutDataError(
                f"principle {principle.id!r}: expected held-out rows in "
                f"{evaluation.heldout}, found none",
                hint=_remedy(principle),
            )
    return counts


def _remedy(principle: Principle) -> str:
    if principle.data is None:
        return (
            f'add rows with "principle": "{principle.id}", or say with data: which '
            "rows are made for it"
        )
    return "correct its data: no row has what it selects"


def _read(directory: Path, file: str) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with (directory / file).open("rb") as lines:
            number = 0
            while line := lines.readline(_MAX_ROW + 1):
                number += 1
                yield number, read_object(line, max_bytes=_MAX_ROW)
    except OSError as error:
        raise ConfigurationError(
            f"{directory / file}: cannot be read: {error.strerror}",
            hint="correct the path in the constitution, or give another --data",
        ) from error
    except FormatError as error:
        raise ConfigurationError(
            f"{file}, line {number}: {error}", hint="expected one JSON object a line"
        ) from error
