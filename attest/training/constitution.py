"""The constitution: a readable YAML file that says what a model is trained to do.

Its digest is SHA-256 over the RFC 8785 form of the parsed object, so comments, quoting
and key order do not count and every other change does.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NoReturn

from attest.canonical import canonical
from attest.digests import digest
from attest.errors import ConstitutionError, FormatError
from attest.training.strict_yaml import read_yaml

__all__ = [
    "MAX_BYTES",
    "SCHEMA",
    "Band",
    "Constitution",
    "Evaluation",
    "Principle",
    "Requirement",
    "load_constitution",
    "parse_constitution",
]

SCHEMA = "constitution/1"

# PyYAML's pure-Python scanner needs about a second for this much.
MAX_BYTES = 256 * 1024
_MAX_PRINCIPLES = 256

_HINT = "correct the file, then: attest constitution check FILE"

_ID = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*\Z")
_SEMVER = re.compile(r"(?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*)){2}\Z", re.ASCII)
_CLASSES = ("safety-critical", "adaptable", "capability")
_PREDICATES = ("contains", "exact", "starts-with")
_ON_MISS = ("fail", "warn", "record")


@dataclass(frozen=True, slots=True)
class Band:
    """Which blocks of a model a principle may change.

    Either `layers` names them, or a block l of n belongs when its centre (l + 1/2) / n
    lies in [start, stop), both in thousandths of the depth.
    """

    start: int = 0
    stop: int = 1000
    layers: tuple[int, ...] = ()

    def members(self, count: int) -> tuple[int, ...]:
        """The block numbers of a model with `count` blocks, ascending.

        Raises:
            ConstitutionError: the band holds no block of such a model, or names one
                that it does not have.
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
            raise ConstitutionError(
                f"band: {self} holds the centre of no layer of {count}",
                hint=f"make it at least {-(-1000 // count)} thousandths wide",
            )
        return found

    def __str__(self) -> str:
        if self.layers:
            return "layers " + ",".join(map(str, self.layers))
        return f"{self.start}-{self.stop}"


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
            ConstitutionError: there is none, as when a batch names a principle that
                the constitution does not have.
        """
        for principle in self.principles:
            if principle.id == name:
                return principle
        known = ", ".join(p.id for p in self.principles)
        raise ConstitutionError(
            f"principle {name!r}: expected one of {known}",
            hint="correct the row's principle or add it to the constitution",
        )

    @property
    def routed(self) -> tuple[Principle, ...]:
        """The principles that have a band, in file order."""
        return tuple(p for p in self.principles if p.band is not None)


def load_constitution(path: Path) -> Constitution:
    """The constitution of a file.

    Raises:
        ConstitutionError: unreadable, or as `parse_constitution`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConstitutionError(f"{path}: {error.strerror or error}") from error
    try:
        return parse_constitution(data)
    except ConstitutionError as error:
        raise ConstitutionError(f"{path}: {error}", hint=error.hint) from error


def parse_constitution(data: bytes) -> Constitution:
    """The constitution that these bytes hold.

    Raises:
        ConstitutionError: not the strict YAML subset of this module, an unknown or
            missing field, or a value outside its range; the message names the field.
    """
    try:
        document = read_yaml(data, max_bytes=MAX_BYTES)
    except FormatError as error:
        raise ConstitutionError(f"constitution: {error}", hint=_HINT) from error
    body = _fields(document, "", ("schema", "id", "version", "principles"))
    if body["schema"] != SCHEMA:
        _fail("schema", f"expected {SCHEMA!r}, found {body['schema']!r}")
    rows = body["principles"]
    if not isinstance(rows, list) or not 1 <= len(rows) <= _MAX_PRINCIPLES:
        _fail("principles", f"expected a list of 1 to {_MAX_PRINCIPLES}")
    principles = tuple(
        _principle(row, f"principles[{i}]") for i, row in enumerate(rows)
    )
    _check_names(principles)
    version = _text(body["version"], "version", 64)
    if not _SEMVER.match(version):
        _fail("version", f"expected three numbers such as 1.0.0, found {version!r}")
    return Constitution(
        _identifier(body["id"], "id"), version, principles, digest(canonical(document))
    )


def _check_names(principles: Sequence[Principle]) -> None:
    names = [p.id for p in principles]
    for name in names:
        if names.count(name) > 1:
            _fail("principles", f"two principles have the id {name!r}")
    if all(p.band is None for p in principles):
        _fail("principles", "none has a band, so there is nothing to train")
    for principle in principles:
        for other in principle.anchors:
            if other == principle.id or other not in (*names, "others"):
                _fail(
                    f"principle {principle.id}, anchors",
                    f"expected another principle's id or 'others', found {other!r}",
                )


def _principle(row: Any, path: str) -> Principle:
    body = _fields(
        row,
        path,
        ("id", "title", "class", "text"),
        ("band", "anchors", "evaluation", "requirement"),
    )
    name = _identifier(body["id"], f"{path}.id")
    if name == "others":
        _fail(f"{path}.id", "'others' is reserved for anchors")
    kind = _choice(body["class"], f"{path}.class", _CLASSES)
    band = _band(body["band"], f"{path}.band") if "band" in body else None
    if band is None and kind != "capability":
        _fail(path, f"a principle of class {kind} needs a band")
    return Principle(
        id=name,
        title=_text(body["title"], f"{path}.title", 200),
        kind=kind,
        text=_text(body["text"], f"{path}.text", 8192),
        band=band,
        anchors=_anchors(body.get("anchors", {}), f"{path}.anchors"),
        evaluation=_evaluation(body.get("evaluation"), f"{path}.evaluation"),
        requirement=_requirement(body.get("requirement"), f"{path}.requirement"),
        digest=digest(canonical(row)),
    )


def _band(value: Any, path: str) -> Band:
    if value == "all":
        return Band()
    if isinstance(value, dict) and "layers" in value:
        layers = _fields(value, path, ("layers",))["layers"]
        if not isinstance(layers, list) or not layers:
            _fail(f"{path}.layers", "expected a list of block numbers")
        numbers = tuple(_integer(n, f"{path}.layers", 0, 9999) for n in layers)
        if sorted(set(numbers)) != list(numbers):
            _fail(f"{path}.layers", "expected ascending numbers, each once")
        return Band(layers=numbers)
    body = _fields(value, path, ("from", "to"))
    start = _integer(body["from"], f"{path}.from", 0, 1000)
    stop = _integer(body["to"], f"{path}.to", 0, 1000)
    if start >= stop:
        _fail(path, f"expected from below to, found {start} and {stop}")
    return Band(start, stop)


def _anchors(value: Any, path: str) -> Mapping[str, int]:
    if not isinstance(value, dict):
        _fail(path, "expected principle ids with a number of rows each")
    return MappingProxyType(
        {name: _integer(n, f"{path}.{name}", 0, 4096) for name, n in value.items()}
    )


def _evaluation(value: Any, path: str) -> Evaluation | None:
    if value is None:
        return None
    body = _fields(value, path, ("predicate", "heldout"), ("value",))
    predicate = _choice(body["predicate"], f"{path}.predicate", _PREDICATES)
    if (predicate == "exact") == ("value" in body):
        _fail(path, "contains and starts-with need a value, exact has none")
    word = _text(body["value"], f"{path}.value", 200) if "value" in body else ""
    return Evaluation(predicate, _text(body["heldout"], f"{path}.heldout", 200), word)


def _requirement(value: Any, path: str) -> Requirement | None:
    if value is None:
        return None
    body = _fields(value, path, ("attack-suite", "min-steps-below-half", "on-miss"))
    least = body["min-steps-below-half"]
    return Requirement(
        _identifier(body["attack-suite"], f"{path}.attack-suite"),
        _integer(least, f"{path}.min-steps-below-half", 1, 1_000_000),
        _choice(body["on-miss"], f"{path}.on-miss", _ON_MISS),
    )


def _fail(path: str, problem: str) -> NoReturn:
    raise ConstitutionError(
        f"constitution: {path}: {problem}" if path else f"constitution: {problem}",
        hint=_HINT,
    )


def _fields(
    value: Any, path: str, required: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, Any]:
    if not isinstance(value, dict):
        _fail(path, f"expected a mapping with {', '.join(required)}")
    for name in required:
        if name not in value:
            _fail(path, f"{name!r} is missing")
    for name in value:
        if name not in (*required, *optional):
            known = ", ".join((*required, *optional))
            _fail(path, f"unknown key {name!r}; known are {known}")
    return value


def _identifier(value: Any, path: str) -> str:
    text = _text(value, path, 64)
    if not _ID.match(text):
        _fail(path, f"expected lower-case letters, digits and hyphens, found {text!r}")
    return text


def _text(value: Any, path: str, limit: int) -> str:
    if not isinstance(value, str) or not value.strip():
        _fail(path, "expected text; quote it where YAML would read something else")
    if len(value) > limit:
        _fail(path, f"expected at most {limit} characters, found {len(value)}")
    return value


def _integer(value: Any, path: str, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        _fail(path, f"expected a whole number from {least} to {most}")
    if not least <= value <= most:
        _fail(path, f"expected a number from {least} to {most}, found {value}")
    return value


def _choice(value: Any, path: str, known: Sequence[str]) -> Any:
    if value not in known:
        _fail(path, f"expected one of {', '.join(known)}, found {value!r}")
    return value
