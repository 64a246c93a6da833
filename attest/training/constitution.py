"""The constitution: a readable YAML file that says what a model is trained to do.

Its digest is SHA-256 over the RFC 8785 form of the parsed object, so comments, quoting
and key order do not count and every other change does.

`constitution.schema.json` beside this module says the same for editors, as far as a
JSON Schema can: it does not see that ids are unique, that anchors name principles, that
`from` is below `to`, that layers ascend, or that no held-out file is trained on.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from attest.canonical import canonical
from attest.digests import digest
from attest.errors import ConstitutionError, FormatError
from attest.training.principles import (
    UNITS,
    Band,
    Constitution,
    DataSelector,
    EmptyBandError,
    Evaluation,
    Principle,
    PrincipleWithoutDataError,
    Requirement,
    UnknownPrincipleError,
)
from attest.training.strict_yaml import read_yaml

__all__ = [
    "MAX_BYTES",
    "SCHEMA",
    "Band",
    "Constitution",
    "DataSelector",
    "EmptyBandError",
    "Evaluation",
    "Principle",
    "PrincipleWithoutDataError",
    "Requirement",
    "UnknownPrincipleError",
    "load_constitution",
    "parse_constitution",
]

SCHEMA = "constitution/1"

# PyYAML's pure-Python scanner needs about a second for this much.
MAX_BYTES = 256 * 1024
_MAX_PRINCIPLES = 256

_HINT = "correct the file, then: attest constitution check FILE"

_ID = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*\Z")
# Relative, with forward slashes, and nothing that leads out of the data directory.
_PATH = re.compile(
    r"(?!\.{1,2}(?:/|\Z))[^/\\\x00-\x1f\x7f]+"
    r"(?:/(?!\.{1,2}(?:/|\Z))[^/\\\x00-\x1f\x7f]+)*\Z"
)
_SEMVER = re.compile(r"(?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*)){2}\Z", re.ASCII)
_CLASSES = ("safety-critical", "adaptable", "capability")
_PREDICATES = ("contains", "exact", "starts-with")
_ON_MISS = ("fail", "warn", "record")


def load_constitution(path: Path) -> Constitution:
    """The constitution of a file.

    Raises:
        ConstitutionError: unreadable, or as `parse_constitution`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConstitutionError(
            f"{path}: {error.strerror or error}", hint="check the path"
        ) from error
    try:
        return parse_constitution(data)
    except ConstitutionError as error:
        raise type(error)(f"{path}: {error}", hint=error.hint) from error


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
    _check_heldout(principles)
    for principle in principles:
        for other in principle.anchors:
            if other == principle.id or other not in (*names, "others"):
                _fail(
                    f"principle {principle.id}, anchors",
                    f"expected another principle's id or 'others', found {other!r}",
                )


def _check_heldout(principles: Sequence[Principle]) -> None:
    heldout = {p.evaluation.heldout for p in principles if p.evaluation}
    for principle in principles:
        files = principle.data.files if principle.data else ()
        for file in sorted(heldout.intersection(files)):
            _fail(
                f"principle {principle.id}, data",
                f"{file} is held out for an evaluation, so it cannot be trained on",
            )


def _principle(row: Any, path: str) -> Principle:
    body = _fields(
        row,
        path,
        ("id", "title", "class", "text"),
        ("band", "anchors", "data", "evaluation", "requirement"),
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
        data=_data(body["data"], f"{path}.data") if "data" in body else None,
    )


def _band(value: Any, path: str) -> Band:
    if value == "all":
        return Band()
    if isinstance(value, dict) and "layers" in value:
        body = _fields(value, path, ("layers",), ("units",))
        layers = _list(body["layers"], f"{path}.layers", 10_000, "block numbers")
        numbers = tuple(_integer(n, f"{path}.layers", 0, 9999) for n in layers)
        if sorted(set(numbers)) != list(numbers):
            _fail(f"{path}.layers", "expected ascending numbers, each once")
        return Band(layers=numbers, units=_units(body, path))
    body = _fields(value, path, ("from", "to"), ("units",))
    start = _integer(body["from"], f"{path}.from", 0, 1000)
    stop = _integer(body["to"], f"{path}.to", 0, 1000)
    if start >= stop:
        _fail(path, f"expected from below to, found {start} and {stop}")
    return Band(start, stop, units=_units(body, path))


def _units(body: Mapping[str, Any], path: str) -> tuple[str, ...]:
    if "units" not in body:
        return ()
    named = _list(body["units"], f"{path}.units", len(UNITS), "units")
    chosen = [_choice(unit, f"{path}.units", UNITS) for unit in named]
    _once(chosen, f"{path}.units")
    return tuple(unit for unit in UNITS if unit in chosen)


def _data(value: Any, path: str) -> DataSelector:
    body = _fields(value, path, (), ("files", "where"))
    if not body:
        _fail(path, "expected files, where or both")
    files: list[str] = []
    if "files" in body:
        named = _list(body["files"], f"{path}.files", 64, "paths")
        files = [_file(name, f"{path}.files") for name in named]
        _once(files, f"{path}.files")
    where = _where(body["where"], f"{path}.where") if "where" in body else {}
    return DataSelector(tuple(files), MappingProxyType(where))


def _where(value: Any, path: str) -> dict[str, tuple[str | int | bool, ...]]:
    if not isinstance(value, dict) or not 1 <= len(value) <= 16:
        _fail(path, "expected 1 to 16 members of a row with the values to accept")
    where = {}
    for name, wanted in value.items():
        place = f"{path}.{_text(name, path, 64)}"
        many = isinstance(wanted, list)
        values = _list(wanted, place, 64, "values") if many else [wanted]
        if not all(isinstance(item, str | int) for item in values):
            _fail(place, "expected text, a whole number, true or false")
        _once(values, place)
        where[name] = tuple(values)
    return where


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
    return Evaluation(predicate, _file(body["heldout"], f"{path}.heldout"), word)


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


def _file(value: Any, path: str) -> str:
    text = _text(value, path, 200)
    if not _PATH.match(text):
        _fail(path, f"expected a path below the data directory, found {text!r}")
    return text


def _list(value: Any, path: str, limit: int, what: str) -> list[Any]:
    if not isinstance(value, list) or not 1 <= len(value) <= limit:
        _fail(path, f"expected a list of {what}, 1 to {limit}")
    return value


def _once(values: Sequence[Any], path: str) -> None:
    # By type too: to Python, true and 1 are the same.
    if len({(type(value), value) for value in values}) != len(values):
        _fail(path, "expected each value once")


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
