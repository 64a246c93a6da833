"""Reading a `schedule.json`: what a schedule says, once all its digests are made again.

Without torch, so that a verifier sees which tensors each principle was allowed to
change. That training kept to it is the ledger's claim, and is not checked here.
"""

import re
from collections.abc import Mapping
from typing import Any, NoReturn

from attest.canonical import read_object
from attest.digests import parse_digest
from attest.errors import FormatError, UnsupportedVersionError
from attest.training.principles import UNITS
from attest.training.routing import (
    SCHEDULE_SCHEMA,
    Layout,
    Route,
    Schedule,
    layer_unit,
    route_of,
)

__all__ = ["MAX_SCHEDULE", "parse_schedule"]

# A mixture of 60 blocks with 256 experts each has 46,000 tensors and 4 MB of names.
MAX_SCHEDULE = 32 * 1024 * 1024
_MAX_BLOCKS = 10_000
_MAX_NAME = 512

_MEMBERS = {"schema", "constitution", "model", "tensors", "frozen", "routes"}
_ID = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*\Z")


def parse_schedule(data: bytes) -> Schedule:
    """The schedule that these bytes hold; its digest is theirs.

    Raises:
        FormatError: not the exact bytes that `Schedule.dumps` writes, or a digest in
            it is not that of the tensors of its route.
        UnsupportedVersionError: another version of the format.
    """
    document = read_object(data, max_bytes=MAX_SCHEDULE, max_depth=5)
    schema = document.get("schema")
    if schema != SCHEDULE_SCHEMA and str(schema).startswith("schedule/"):
        raise UnsupportedVersionError(
            f"schedule: expected {SCHEDULE_SCHEMA}, found {str(schema)[:32]!r}",
            hint="upgrade attest-gateway",
        )
    if document.keys() != {*_MEMBERS, "anchored"} or schema != SCHEDULE_SCHEMA:
        _fail(f"expected an object of schema {SCHEDULE_SCHEMA} and its members alone")
    parse_digest(document["constitution"])
    layout = _layout(document)
    anchored = tuple(_id(name) for name in _list(document["anchored"], "anchored"))
    routes = _routes(document, layout)
    if len({*anchored, *routes}) != len(anchored) + len(routes):
        _fail("a principle stands twice")
    schedule = Schedule(layout, routes, document["constitution"], anchored)
    if schedule.dumps() != data:
        _fail("not in the canonical form")
    return schedule


def _layout(document: Mapping[str, Any]) -> Layout:
    model, groups = document["model"], document["tensors"]
    if not isinstance(model, dict) or not isinstance(groups, dict):
        _fail("expected model and tensors to be objects")
    if model.keys() != {"architecture", "blocks", "count"}:
        _fail("model: expected architecture, blocks and count")
    count = model["count"]
    if type(count) is not int or not 1 <= count <= _MAX_BLOCKS:
        _fail(f"model: expected a count from 1 to {_MAX_BLOCKS}")
    known = {*map(layer_unit, range(count)), *UNITS, "aside"}
    if not groups.keys() <= known:
        _fail("tensors: holds a unit that such a model does not have")
    units: dict[str, str] = {}
    for unit, names in groups.items():
        for name in _list(names, "tensors"):
            if _text(name) in units:
                _fail("tensors: a tensor stands in two units")
            units[name] = unit
    frozen = {_text(name) for name in _list(document["frozen"], "frozen")}
    if not frozen <= units.keys():
        _fail("frozen: holds a tensor of no unit")
    where = _text(model["architecture"]), _text(model["blocks"])
    return Layout(*where, count, units, frozenset(frozen))


def _routes(document: Mapping[str, Any], layout: Layout) -> dict[str, Route]:
    routes: dict[str, Route] = {}
    for item in _list(document["routes"], "routes"):
        members = {"principle", "layers", "units", "digest"}
        if not isinstance(item, dict) or item.keys() != members:
            _fail(f"routes: expected objects of {', '.join(sorted(members))}")
        name = _id(item["principle"])
        layers = _list(item["layers"], "layers")
        if not all(type(number) is int for number in layers) or not layers:
            _fail("layers: expected block numbers")
        units = _list(item["units"], "units")
        if [unit for unit in UNITS if unit in units] != units or name in routes:
            _fail("routes: expected one per principle, with units of its band")
        route = route_of(name, layout, sorted(set(layers)), units)
        if route.digest != item["digest"]:
            _fail(f"principle {name!r}: its digest is not that of its tensors")
        routes[name] = route
    return routes


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        _fail(f"{what}: expected a list")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= _MAX_NAME:
        _fail(f"expected names of 1 to {_MAX_NAME} characters")
    return value


def _id(value: Any) -> str:
    text = _text(value)
    if not _ID.match(text):
        _fail("expected the ids of principles")
    return text


def _fail(problem: str) -> NoReturn:
    raise FormatError(
        f"schedule: {problem}",
        hint="it was edited or cut; write it again: attest constitution compile",
    )
