"""What a relying party may demand of the training: constitutions and principles.

Values with a JSON form, members of a policy. They are matched against the signed
manifest: what stands there is the training authority's own account.
"""

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Self

from attest.reasons import Finding

__all__ = ["ConstitutionRule", "PrincipleRule", "read_decimal"]

_COMPARATOR = re.compile(r"(>=|<=|>|<|=)([0-9]{1,9}(?:\.[0-9]{1,9}){0,2})")
_VERSION = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9}){0,2}")
_DECIMAL = re.compile(r"-?[0-9]{1,9}(?:\.[0-9]{1,18})?")
_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}
_MAX_TEXT = 256


def read_decimal(value: object) -> Decimal | None:
    """The number of a decimal text, as signed documents hold it; None for all else."""
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        return Decimal(value)
    return None


def _numbers(version: str) -> tuple[int, ...] | None:
    """Three numbers; those that are left out are 0. None for any other version."""
    if not _VERSION.fullmatch(version):
        return None
    numbers = [int(part) for part in version.split(".")]
    return tuple([*numbers, 0, 0][:3])


def _text(value: Mapping[str, Any], name: str) -> str:
    text = value.get(name)
    if not isinstance(text, str) or not 0 < len(text) <= _MAX_TEXT:
        raise ValueError(f"{name} must be a text")
    return text


def _only(value: object, names: set[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict) or not value.keys() <= names:
        raise ValueError(f"expected an object with {', '.join(sorted(names))}")
    return value


@dataclass(frozen=True, slots=True)
class ConstitutionRule:
    """A constitution that is allowed, in some of its versions.

    Attributes:
        id: of the constitution.
        versions: comparators joined by commas that must all hold, such as
            `>=1.2,<2`; "" for any version. A version has one to three numbers, and
            those left out are 0; one in another form meets no comparator.
    """

    id: str
    versions: str = ""

    def __post_init__(self) -> None:
        if self.versions and not all(map(_COMPARATOR.fullmatch, self._comparators)):
            raise ValueError("versions must be comparators such as >=1.2,<2")

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Read {id, versions}, the second of which may be left out.

        Raises:
            ValueError: another form.
        """
        members = _only(value, {"id", "versions"})
        versions = _text(members, "versions") if "versions" in members else ""
        return cls(_text(members, "id"), versions)

    def to_json(self) -> dict[str, str]:
        """The JSON form."""
        versions = {"versions": self.versions} if self.versions else {}
        return {"id": self.id, **versions}

    def allows(self, constitution: Mapping[str, str]) -> bool:
        """Whether it is this constitution, in one of the versions."""
        if constitution["id"] != self.id:
            return False
        version = _numbers(constitution["version"])
        return not self.versions or (
            version is not None
            and all(_holds(comparator, version) for comparator in self._comparators)
        )

    def __str__(self) -> str:
        return f"{self.id} {self.versions}".strip()

    @property
    def _comparators(self) -> list[str]:
        return self.versions.split(",")


def _holds(comparator: str, version: tuple[int, ...]) -> bool:
    match = _COMPARATOR.fullmatch(comparator)
    assert match is not None  # noqa: S101  # __post_init__ saw to it
    return _OPERATORS[match[1]](version, _numbers(match[2]))


@dataclass(frozen=True, slots=True)
class PrincipleRule:
    """A principle that the manifest must name, and what must have been measured of it.

    Attributes:
        id: of the principle.
        min_in_band: the least share that must have been absorbed within its band, as
            a decimal; only a profile that calls itself valid counts. None: any.
        min_steps_below_half: the least number of steps that the worst of the tried
            attacks must have needed to bring it below half. None: any.
    """

    id: str
    min_in_band: Decimal | None = None
    min_steps_below_half: int | None = None

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Read {id, min_in_band, min_steps_below_half}; only `id` must be there.

        Raises:
            ValueError: another form. A share is a decimal text, never a float.
        """
        members = _only(value, {"id", "min_in_band", "min_steps_below_half"})
        share = read_decimal(members.get("min_in_band"))
        steps = members.get("min_steps_below_half")
        if members.get("min_in_band") is not None and share is None:
            raise ValueError("min_in_band must be a decimal text")
        if steps is not None and (type(steps) is not int or steps < 0):
            raise ValueError("min_steps_below_half must be a whole number")
        return cls(_text(members, "id"), share, steps)

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        value: dict[str, Any] = {"id": self.id}
        if self.min_in_band is not None:
            value["min_in_band"] = f"{self.min_in_band:f}"
        if self.min_steps_below_half is not None:
            value["min_steps_below_half"] = self.min_steps_below_half
        return value

    def misses(self, principles: object) -> Iterator[Finding]:
        """What the member `principles` of a manifest does not meet."""
        items = principles if isinstance(principles, list) else []
        named = [i for i in items if isinstance(i, dict) and i.get("id") == self.id]
        if len(named) != 1:
            yield self._miss("principle", "once in the manifest", f"{len(named)} times")
            return
        yield from self._absorption(_object(named[0], "profile"))
        yield from self._resistance(_object(named[0], "resistance"))

    def _absorption(self, profile: Mapping[str, Any]) -> Iterator[Finding]:
        least = self.min_in_band
        if least is None:
            return
        share = read_decimal(profile.get("inBand"))
        expected = f"at least {least:f} in its band"
        if share is None:
            yield self._miss("absorption", expected, "not measured")
        elif profile.get("valid") is not True:
            yield self._miss("absorption", expected, f"{share:f}, not a valid profile")
        elif share < least:
            yield self._miss("absorption", expected, f"{share:f}")

    def _resistance(self, resistance: Mapping[str, Any]) -> Iterator[Finding]:
        least = self.min_steps_below_half
        if least is None:
            return
        steps = _object(_object(resistance, "measured"), "worst").get("stepsBelowHalf")
        expected = f"at least {least} steps until below half"
        if type(steps) is not int:
            yield self._miss("resistance", expected, "not measured")
        elif steps < least:
            yield self._miss("resistance", expected, f"{steps} steps")

    def _miss(self, word: str, expected: str, found: str) -> Finding:
        detail = f"principle {self.id!a}: expected {expected}, found {found}"
        return Finding(f"policy.{word}", detail, self.id, expected, found)


def _object(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    member = value.get(name)
    return member if isinstance(member, dict) else {}
