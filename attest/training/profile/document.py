"""`profile.json`: all that was measured, in whole numbers, from which profiles follow.

Nothing derived stands in it, so nothing in it can contradict itself. Its digest goes
into the statement; the profiles there are what this file gives.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from attest.canonical import read_object
from attest.digests import digest, parse_digest
from attest.errors import ConfigurationError, FormatError, UnsupportedVersionError
from attest.files import write_durably
from attest.training.profile.measured import (
    Allocation,
    Event,
    Exchange,
    Measurement,
)
from attest.training.profile.values import METHOD
from attest.training.routing import layer_unit

__all__ = ["MAX_BYTES", "SCHEMA", "load_profile", "parse_profile", "write_profile"]

SCHEMA = "absorption-profile/1"

# A million numbers of events take a hundred bytes of memory each.
MAX_BYTES = 64 * 1024 * 1024

_OUTSIDE = ("head", "stem", "tied")
_MAX_BLOCKS = 2000
_LARGEST = 10**15
_MAX_NAME = 200
_MAX_CHUNKS = 4096
_MAX_STEPS = 10**9


def write_profile(path: Path, measured: Measurement) -> str:
    """Write the file durably and return its digest.

    When events make it larger than `MAX_BYTES`, it is written without them.

    Raises:
        OSError: it can't be written.
    """
    document = _document(measured)
    data = _encoded(document)
    if len(data) > MAX_BYTES:
        data = _encoded({**document, "events": []})
    write_durably(path, data)
    return digest(data)


def load_profile(path: Path) -> Measurement:
    """What such a file holds.

    Raises:
        ConfigurationError: it can't be read.
        FormatError, UnsupportedVersionError: as `parse_profile`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    return parse_profile(data)


def _encoded(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def _document(measured: Measurement) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "method": measured.method,
        "stage": measured.stage,
        "seed": measured.seed,
        "every": measured.every,
        "steps": measured.steps,
        "blocks": measured.blocks,
        "units": list(measured.units),
        "allocations": [
            {
                "principle": item.principle,
                "band": list(item.band),
                "probe": item.probe,
                "rows": item.rows,
                "weights": list(item.weights),
                "before": list(item.before),
                "after": list(item.after),
                "amounts": {k: list(map(list, v)) for k, v in item.amounts.items()},
            }
            for item in measured.allocations.values()
        ],
        "curve": [[step, dict(at)] for step, at in sorted(measured.curve.items())],
        "events": [
            [event.step, event.source, {k: dict(v) for k, v in event.amounts.items()}]
            for event in measured.events
        ],
        "exchanges": {
            name: {"restore": list(item.restore), "insert": list(item.insert)}
            for name, item in measured.exchanges.items()
        },
    }


def parse_profile(data: bytes) -> Measurement:
    """The measurement that these bytes hold.

    Raises:
        FormatError: too large, not strict JSON, a member too many or missing, or of
            another kind or size than the rest asks for.
        UnsupportedVersionError: another schema or method.
    """
    value = read_object(data, max_bytes=MAX_BYTES, max_depth=8)
    if (value.get("schema"), value.get("method")) != (SCHEMA, METHOD):
        raise UnsupportedVersionError(
            f"profile: expected {SCHEMA} by {METHOD}",
            hint="upgrade: pip install --upgrade attest-gateway",
        )
    body = _members(value, "profile", _TOP)
    blocks = _integer(body["blocks"], "blocks", 1, _MAX_BLOCKS)
    units = tuple(_list(body["units"], "units", _MAX_BLOCKS + len(_OUTSIDE)))
    allowed = [*map(layer_unit, range(blocks)), *(u for u in _OUTSIDE if u in units)]
    if list(units) != allowed:
        _fail("units", "expected all blocks in order, then head, stem and tied")
    items = [
        _allocation(item, blocks=blocks, width=len(units))
        for item in _list(body["allocations"], "allocations", 256)
    ]
    allocations = {item.principle: item for item in items}
    if not items or len(allocations) != len(items):
        _fail("allocations", "expected principles, each once")
    steps = _integer(body["steps"], "steps", 1, _MAX_STEPS)
    return Measurement(
        stage=_name(body["stage"], "stage"),
        seed=None if body["seed"] is None else _integer(body["seed"], "seed"),
        every=_integer(body["every"], "every", 1, _MAX_STEPS),
        steps=steps,
        blocks=blocks,
        units=units,
        allocations=allocations,
        curve=_curve(body["curve"], allocations, steps),
        events=_events(body["events"], allocations, units=units, steps=steps),
        exchanges=_exchanges(body["exchanges"], allocations, len(units)),
    )


_TOP = {
    *("schema", "method", "stage", "seed", "every", "steps", "blocks", "units"),
    *("allocations", "curve", "events", "exchanges"),
}
_ALLOCATION = {
    *("principle", "band", "probe", "rows", "weights", "before", "after", "amounts"),
}


def _allocation(value: Any, *, blocks: int, width: int) -> Allocation:
    body = _members(value, "allocations", _ALLOCATION)
    weights = _integers(body["weights"], "weights", least=1)
    band = _integers(body["band"], "band", least=0)
    if list(band) != sorted(set(band) & set(range(blocks))):
        _fail("band", "expected blocks of the model, ascending")
    if not 1 <= len(weights) <= _MAX_CHUNKS:
        _fail("weights", f"expected 1 to {_MAX_CHUNKS} chunks")
    parse_digest(body["probe"])
    amounts = _object(body["amounts"], "amounts")
    rows = {
        _name(source, "amounts"): tuple(
            _integers(row, "amounts", count=width)
            for row in _list(chunks, "amounts", len(weights))
        )
        for source, chunks in amounts.items()
    }
    if not rows or any(len(row) != len(weights) for row in rows.values()):
        _fail("amounts", "expected sources, each with a row per chunk")
    return Allocation(
        principle=_name(body["principle"], "principle"),
        band=band,
        probe=body["probe"],
        rows=_integer(body["rows"], "rows", 1),
        weights=weights,
        before=_integers(body["before"], "before", count=len(weights)),
        after=_integers(body["after"], "after", count=len(weights)),
        amounts=rows,
    )


def _curve(
    value: Any, known: Mapping[str, Allocation], steps: int
) -> dict[int, dict[str, int]]:
    curve: dict[int, dict[str, int]] = {}
    for item in _list(value, "curve", steps + 1):
        match item:
            case [int(step), dict(losses)] if losses.keys() == known.keys():
                number = _integer(step, "curve", max(curve, default=-1) + 1, steps)
                curve[number] = {k: _integer(v, "curve") for k, v in losses.items()}
            case _:
                _fail("curve", "expected ascending steps, each with all losses")
    return curve


def _events(
    value: Any, known: Mapping[str, Allocation], *, units: tuple[str, ...], steps: int
) -> tuple[Event, ...]:
    events: list[Event] = []
    allowed = set(units)
    for item in _list(value, "events", steps):
        match item:
            case [int(step), str(source), dict(amounts)] if (
                amounts.keys() <= known.keys()
            ):
                least = events[-1].step + 1 if events else 0
                number = _integer(step, "events", least, steps - 1)
                found = {k: _by_unit(v, allowed) for k, v in amounts.items()}
                events.append(Event(number, _name(source, "events"), found))
            case _:
                _fail("events", "expected ascending steps with source and amounts")
    return tuple(events)


def _by_unit(value: Any, allowed: set[str]) -> dict[str, int]:
    amounts = _object(value, "events")
    if not amounts.keys() <= allowed:
        _fail("events", "an amount is for no unit of the model")
    return {unit: _integer(amount, "events") for unit, amount in amounts.items()}


def _exchanges(
    value: Any, known: Mapping[str, Allocation], width: int
) -> dict[str, Exchange]:
    found = {}
    for name, item in _object(value, "exchanges").items():
        if name not in known:
            _fail("exchanges", "expected principles that were measured")
        body = _members(item, "exchanges", {"restore", "insert"})
        found[name] = Exchange(
            restore=_integers(body["restore"], "restore", count=width),
            insert=_integers(body["insert"], "insert", count=width),
        )
    return found


def _fail(name: str, problem: str) -> NoReturn:
    raise FormatError(f"profile.{name}: {problem}")


def _members(value: Any, path: str, names: set[str]) -> dict[str, Any]:
    body = _object(value, path)
    if body.keys() != names:
        _fail(path, f"expected exactly the members {', '.join(sorted(names))}")
    return body


def _object(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _fail(path, "expected an object")
    return value


def _list(value: Any, path: str, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        _fail(path, f"expected a list of at most {most}")
    return value


def _name(value: Any, path: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME:
        _fail(path, "expected a name")
    return value


def _integer(
    value: Any, path: str, least: int = -_LARGEST, most: int = _LARGEST
) -> int:
    if type(value) is not int or not least <= value <= most:
        _fail(path, f"expected an integer from {least} to {most}")
    return value


def _integers(
    value: Any, path: str, *, least: int = -_LARGEST, count: int | None = None
) -> tuple[int, ...]:
    numbers = _list(value, path, _MAX_CHUNKS if count is None else count)
    if count is not None and len(numbers) != count:
        _fail(path, f"expected {count} integers")
    return tuple(_integer(number, path, least) for number in numbers)
