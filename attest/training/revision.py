"""What changed between two versions of a constitution, and what version it needs.

| change | part of the version |
|---|---|
| text of a safety-critical principle; its class; any principle taken away | major |
| other text or class; band, anchors, data, evaluation, requirement; a new one | minor |
| title; order of principles; the same written in another way | patch |

A version calls for the largest part of its changes, before 1.0.0 too.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from attest.errors import ConstitutionError
from attest.training.constitution import Constitution, Principle, Requirement

__all__ = ["Change", "Part", "Revision", "revise"]

# Characters around a difference in a text that are shown with it.
_CONTEXT = 40


class Part(IntEnum):
    """The part of a semantic version that a change calls for, the smallest first."""

    NONE = 0
    PATCH = 1
    MINOR = 2
    MAJOR = 3

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Change:
    """One change.

    Attributes:
        principle: its id, or "" for the constitution as a whole.
        words: what changed, from what to what; holds text of the constitutions.
    """

    principle: str
    words: str
    part: Part


@dataclass(frozen=True, slots=True)
class Revision:
    """All changes from one version to another.

    Attributes:
        stepped: the part that the new version in fact counts up; none where it is the
            same or smaller.
        least: the smallest version that is enough.
        enough: whether the new version counts up what its changes call for, and is not
            smaller than the old one.
    """

    changes: tuple[Change, ...]
    needed: Part
    stepped: Part
    least: str
    enough: bool


def revise(old: Constitution, new: Constitution) -> Revision:
    """Compare two versions of one constitution.

    Raises:
        ConstitutionError: they have different ids.
    """
    if old.id != new.id:
        raise ConstitutionError(
            f"expected two versions of one constitution, found {old.id} and {new.id}",
            hint="the id stays the same in all versions",
        )
    changes = tuple(_changes(old, new))
    needed = max((change.part for change in changes), default=Part.NONE)
    start, end = _numbers(old.version), _numbers(new.version)
    stepped = _stepped(start, end)
    least = ".".join(map(str, _counted_up(start, needed)))
    enough = stepped >= needed and end >= start
    return Revision(changes, needed, stepped, least, enough)


def _changes(old: Constitution, new: Constitution) -> Iterator[Change]:
    before = {p.id: p for p in old.principles}
    after = {p.id: p for p in new.principles}
    for name, principle in before.items():
        if name not in after:
            yield Change(name, f"taken away ({principle.kind})", Part.MAJOR)
        elif principle.digest != after[name].digest:
            yield from _changed(principle, after[name])
    for name, principle in after.items():
        if name not in before:
            yield Change(name, f"new ({principle.kind})", Part.MINOR)
    orders = [
        [n for n in some if n in before and n in after] for some in (after, before)
    ]
    if orders[0] != orders[1]:
        yield Change("", "principles stand in another order", Part.PATCH)


def _changed(old: Principle, new: Principle) -> Iterator[Change]:
    critical = "safety-critical"
    found = []
    for field, show in _FIELDS.items():
        was, now = show(old), show(new)
        if was == now:
            continue
        part = Part.PATCH if field == "title" else Part.MINOR
        if (field == "text" and critical in (old.kind, new.kind)) or (
            field == "class" and old.kind == critical
        ):
            part = Part.MAJOR
        weaker = field == "requirement" and _weaker(old.requirement, new.requirement)
        if field in ("title", "text"):
            was, now = _contrast(was, now)
        words = f"{field}: {was} → {now}" + (" (asks for less)" if weaker else "")
        found.append(Change(old.id, words, part))
    yield from found or [Change(old.id, "the same, written in another way", Part.PATCH)]


def _contrast(old: str, new: str) -> tuple[str, str]:
    """Both texts, quoted, without what long ones have in common at start and end."""
    start = _in_common(old, new)
    rest = min(len(old), len(new)) - start
    end = min(_in_common(old[::-1], new[::-1]), rest)
    first, after = max(0, start - _CONTEXT), max(0, end - _CONTEXT)
    return _cut(old, first, after), _cut(new, first, after)


def _in_common(old: str, new: str) -> int:
    pairs = enumerate(zip(old, new, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(old), len(new)))


def _cut(text: str, first: int, after: int) -> str:
    left, right = "…" if first else "", "…" if after else ""
    return repr(f"{left}{text[first : len(text) - after]}{right}")


def _weaker(old: Requirement | None, new: Requirement | None) -> bool:
    if old is None or new is None:
        return old is not None
    strictness = ("record", "warn", "fail")
    return new.min_steps_below_half < old.min_steps_below_half or strictness.index(
        new.on_miss
    ) < strictness.index(old.on_miss)


def _data(principle: Principle) -> str:
    if principle.data is None:
        return "rows that name it"
    rules = [f"{name} is {_any(v)}" for name, v in sorted(principle.data.where.items())]
    files = sorted(principle.data.files)
    return "; ".join([*([_any(files)] if files else []), *rules])


def _any(values: Sequence[Any]) -> str:
    return " or ".join(json.dumps(value, ensure_ascii=False) for value in values)


def _evaluation(principle: Principle) -> str:
    judged = principle.evaluation
    if judged is None:
        return "none"
    word = f" {judged.value!r}" if judged.value else ""
    return f"{judged.predicate}{word} in {judged.heldout}"


def _requirement(principle: Principle) -> str:
    asked = principle.requirement
    if asked is None:
        return "none"
    steps = asked.min_steps_below_half
    return f"{steps} steps in {asked.attack_suite}, {asked.on_miss} on a miss"


def _anchors(principle: Principle) -> str:
    rows = sorted(principle.anchors.items())
    return ", ".join(f"{count} {name}" for name, count in rows if count) or "none"


_FIELDS: Mapping[str, Callable[[Principle], str]] = {
    "title": lambda p: p.title,
    "class": lambda p: p.kind,
    "text": lambda p: p.text,
    "band": lambda p: str(p.band or "none"),
    "anchors": _anchors,
    "data": _data,
    "evaluation": _evaluation,
    "requirement": _requirement,
}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _stepped(start: tuple[int, ...], end: tuple[int, ...]) -> Part:
    if end <= start:
        return Part.NONE
    return Part(3 - next(n for n in range(3) if start[n] != end[n]))


def _counted_up(start: tuple[int, ...], part: Part) -> tuple[int, ...]:
    if part is Part.NONE:
        return start
    place = 3 - part
    return (*start[:place], start[place] + 1, *(0 for _ in range(part - 1)))
