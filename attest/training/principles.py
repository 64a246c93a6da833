"""What a constitution holds: principles, and what each may change, draw from and need.

Values only; `attest.training.constitution` reads them from a file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from attest.errors import ConstitutionError

__all__ = [
    "UNITS",
    "Band",
    "Constitution",
    "DataSelector",
    "EmptyBandError",
    "Evaluation",
    "Principle",
    "PrincipleWithoutDataError",
    "Requirement",
    "UnknownPrincipleError",
]

# What a band may name besides layers, in the order in which it is written and shown.
UNITS = ("stem", "head", "tied")


class EmptyBandError(ConstitutionError):
    """A band holds no layer of this model, or none that can be trained."""

    code = "empty_band"


class UnknownPrincipleError(ConstitutionError):
    """A row or a batch names a principle that the constitution does not have."""

    code = "unknown_principle"


class PrincipleWithoutDataError(ConstitutionError):
    """Training draws rows of a principle, and no row belongs to it."""

    code = "principle_without_data"


@dataclass(frozen=True, slots=True)
class Band:
    """Which parts of a model a principle may change.

    Either `layers` names blocks, or a block l of n belongs when its centre
    (l + 1/2) / n lies in [start, stop), both in thousandths of the depth.

    Attributes:
        units: what the band holds besides blocks, out of `UNITS`, in that order.
    """

    start: int = 0
    stop: int = 1000
    layers: tuple[int, ...] = ()
    units: tuple[str, ...] = ()

    def members(self, count: int) -> tuple[int, ...]:
        """The block numbers of a model with `count` blocks, ascending.

        Raises:
            EmptyBandError: the band holds no block of such a model.
            ConstitutionError: it names one that the model does not have.
        """
        if self.layers:
            if self.layers[-1] >= count:
                raise ConstitutionError(
                    f"band: expected layers below {count}, found {self.layers[-1]}",
                    hint="name layers that the model has, or give a band in "
                    "thousandths of its depth",
                )
            return self.layers
        # In integers: (l + 1/2) / n >= start / 1000  <=>  1000 (2l + 1) >= 2n start.
        found = tuple(
            layer
            for layer in range(count)
            if 2 * count * self.start <= 1000 * (2 * layer + 1) < 2 * count * self.stop
        )
        if not found:
            raise EmptyBandError(
                f"band: {self} holds the centre of no layer of {count}",
                hint=f"make it at least {-(-1000 // count)} thousandths wide",
            )
        return found

    def __str__(self) -> str:
        if self.layers:
            text = "layers " + ",".join(map(str, self.layers))
        else:
            text = f"{self.start}-{self.stop}"
        return " + ".join((text, *self.units))


@dataclass(frozen=True, slots=True)
class DataSelector:
    """Which rows are made for a principle.

    Attributes:
        files: paths below the data directory; empty for every file.
        where: members that a row must have, each with the values that are accepted.
    """

    files: tuple[str, ...]
    where: Mapping[str, tuple[str | int | bool, ...]]

    def matches(self, row: Mapping[str, Any], file: str) -> bool:
        """Whether a row of that file belongs; `true` and 1 are different values."""
        if self.files and file not in self.files:
            return False
        return self.describes(row)

    def describes(self, row: Mapping[str, Any]) -> bool:
        """Whether a row has the members that are asked for, whatever its file."""
        return all(
            any(type(row.get(name)) is type(v) and row[name] == v for v in values)
            for name, values in self.where.items()
        )


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How held-out answers are judged: a predicate over the text, and its word."""

    predicate: Literal["contains", "exact", "starts-with"]
    heldout: str
    value: str = ""

    def holds(self, answer: str, expected: str) -> bool:
        """Whether an answer keeps the principle.

        `exact` compares with the item's expected answer; the others look for the
        predicate's own word and ignore the expected answer.
        """
        if self.predicate == "exact":
            return answer == expected
        if self.predicate == "starts-with":
            return answer.startswith(self.value)
        return self.value in answer


@dataclass(frozen=True, slots=True)
class Requirement:
    """What resistance the authors ask for, and what a miss does to signing."""

    attack_suite: str
    min_steps_below_half: int
    on_miss: Literal["fail", "warn", "record"]


@dataclass(frozen=True, slots=True)
class Principle:
    """One principle.

    Attributes:
        band: None for a capability that is only anchored, never trained for itself.
        anchors: how many rows of each other principle join every batch of this one.
            They decide where a principle ends up as much as the band does, hence
            the ledger records them per sample.
        digest: of the principle's own RFC 8785 form.
        data: None where rows carry the principle's id themselves; see `selector`.
    """

    id: str
    title: str
    kind: Literal["safety-critical", "adaptable", "capability"]
    text: str
    band: Band | None
    anchors: Mapping[str, int]
    evaluation: Evaluation | None
    requirement: Requirement | None
    digest: str
    data: DataSelector | None = None

    @property
    def selector(self) -> DataSelector:
        """Its data selector; without one, rows whose `principle` is its id."""
        where = MappingProxyType({"principle": (self.id,)})
        return self.data or DataSelector((), where)


@dataclass(frozen=True, slots=True)
class Constitution:
    """A parsed constitution; its digest covers every field of the file."""

    id: str
    version: str
    principles: tuple[Principle, ...]
    digest: str

    def principle(self, name: str) -> Principle:
        """The principle of that id.

        Raises:
            UnknownPrincipleError: there is none, as when a batch names a principle
                that the constitution does not have.
        """
        for principle in self.principles:
            if principle.id == name:
                return principle
        known = ", ".join(p.id for p in self.principles)
        raise UnknownPrincipleError(
            f"principle {name!r}: expected one of {known}",
            hint="correct the row's principle or add it to the constitution",
        )

    @property
    def routed(self) -> tuple[Principle, ...]:
        """The principles that have a band, in file order."""
        return tuple(p for p in self.principles if p.band is not None)
