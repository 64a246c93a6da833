"""The routing schedule: which tensors each principle of a constitution may change.

Pure: a layout in, a schedule out. `attest.training.layout` reads the layout of a model.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from attest.canonical import canonical
from attest.digests import digest
from attest.errors import ConstitutionError
from attest.training.constitution import (
    Constitution,
    EmptyBandError,
    Principle,
    UnknownPrincipleError,
)
from attest.training.principles import UNITS

__all__ = [
    "SCHEDULE_SCHEMA",
    "Layout",
    "Route",
    "Schedule",
    "anchor_counts",
    "compile_schedule",
    "layer_unit",
    "route_of",
]

SCHEDULE_SCHEMA = "schedule/1"


def layer_unit(layer: int) -> str:
    """The unit name of block `layer`: `L00`, `L01`, ..."""
    return f"L{layer:02d}"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each tensor of a model sits.

    Attributes:
        architecture: the model's class name.
        blocks: module path of the list of blocks, such as `model.layers`.
        count: how many blocks there are.
        units: unit of every parameter by tensor name: `L00`.. for the blocks, `stem`
            before and `head` after them, `tied` for a tensor that serves at more than
            one place or between two blocks, `aside` for one that text does not reach.
        frozen: names of the tensors that training changes for no principle, as those
            of a base under adapters.
    """

    architecture: str
    blocks: str
    count: int
    units: Mapping[str, str]
    frozen: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Route:
    """What one principle may change.

    Attributes:
        layers: block numbers, ascending: those of the band that can be trained.
        tensors: names of the parameters, sorted; no other one may change.
        digest: of the RFC 8785 form of principle and tensors.
        units: what else the band names and can be trained: `stem`, `head`, `tied`.
    """

    principle: str
    layers: tuple[int, ...]
    tensors: tuple[str, ...]
    digest: str
    units: tuple[str, ...] = ()


@dataclass(frozen=True)
class Schedule:
    """All routes of a constitution against one model.

    Attributes:
        constitution: its digest.
        anchored: ids of the principles that have no route of their own.
    """

    layout: Layout
    routes: Mapping[str, Route]
    constitution: str
    anchored: tuple[str, ...] = field(default=())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of `dumps()`, as `sha256sum schedule.json` prints it."""
        return digest(self.dumps())

    def dumps(self) -> bytes:
        """The content of `schedule.json`: RFC 8785, without a newline at the end."""
        return canonical(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The document: every tensor under its unit, and the units of every route."""
        tensors: dict[str, list[str]] = {}
        for name, unit in sorted(self.layout.units.items()):
            tensors.setdefault(unit, []).append(name)
        return {
            "schema": SCHEDULE_SCHEMA,
            "constitution": self.constitution,
            "model": {
                "architecture": self.layout.architecture,
                "blocks": self.layout.blocks,
                "count": self.layout.count,
            },
            "tensors": tensors,
            "frozen": sorted(self.layout.frozen),
            "routes": [
                {
                    "principle": route.principle,
                    "layers": list(route.layers),
                    "units": list(route.units),
                    "digest": route.digest,
                }
                for route in self.routes.values()
            ],
            "anchored": list(self.anchored),
        }

    def route(self, principle: str) -> Route:
        """The route of a principle.

        Raises:
            UnknownPrincipleError: the constitution has no such principle.
            ConstitutionError: the principle is only anchored, so it has no route.
        """
        if principle in self.routes:
            return self.routes[principle]
        known = ", ".join(self.routes)
        if principle in self.anchored:
            raise ConstitutionError(
                f"principle {principle!r} has no route; expected one of {known}",
                hint="give it a band in the constitution, or use its rows as anchors",
            )
        raise UnknownPrincipleError(
            f"principle {principle!r}: has no route; expected one of {known}",
            hint="correct the row's principle or add it to the constitution",
        )


def compile_schedule(constitution: Constitution, layout: Layout) -> Schedule:
    """The schedule of a constitution against a model.

    A band takes whole blocks. Embeddings, final norm, head and tied tensors stay frozen
    while a principle is trained, unless its band names their unit. Tensors that the
    layout says are frozen are in no route.

    Raises:
        EmptyBandError: a band holds no block of this model, or only frozen ones.
        ConstitutionError: a band names a block or a unit that this model does not have.
            Each names the principle.
    """
    routes = {p.id: _route(p, layout) for p in constitution.routed}
    anchored = tuple(p.id for p in constitution.principles if p.band is None)
    return Schedule(layout, routes, constitution.digest, anchored)


def anchor_counts(principle: Principle, constitution: Constitution) -> dict[str, int]:
    """How many rows of each other principle join a batch of this one."""
    rest = principle.anchors.get("others", 0)
    counts = {
        other.id: principle.anchors.get(other.id, rest)
        for other in constitution.principles
        if other.id != principle.id
    }
    return {name: count for name, count in counts.items() if count}


def route_of(
    principle: str, layout: Layout, layers: Iterable[int], units: Iterable[str]
) -> Route:
    """The route that takes these blocks and units, as far as they can be trained."""
    wanted = {layer_unit(layer): layer for layer in layers}
    named = tuple(units)
    tensors, found = [], set()
    for name, unit in layout.units.items():
        if name not in layout.frozen and (unit in wanted or unit in named):
            tensors.append(name)
            found.add(unit)
    tensors.sort()
    content = {"principle": principle, "tensors": tensors}
    return Route(
        principle,
        tuple(layer for unit, layer in wanted.items() if unit in found),
        tuple(tensors),
        digest(canonical(content)),
        tuple(unit for unit in named if unit in found),
    )


def _route(principle: Principle, layout: Layout) -> Route:
    if principle.band is None:
        raise ConstitutionError(f"principle {principle.id!r} has no band")
    try:
        layers = principle.band.members(layout.count)
    except ConstitutionError as error:
        raise type(error)(
            f"principle {principle.id!r}: {error}", hint=error.hint
        ) from error
    present = set(layout.units.values())
    for unit in principle.band.units:
        if unit not in present:
            has = ", ".join(u for u in UNITS if u in present) or "none of them"
            raise ConstitutionError(
                f"principle {principle.id!r}: band: expected units of "
                f"{layout.architecture}, found {unit!r}; it has {has}",
                hint="tied embeddings are the unit tied, and then no part of the stem",
            )
    route = route_of(principle.id, layout, layers, principle.band.units)
    if not route.layers:
        raise EmptyBandError(
            f"principle {principle.id!r}: band: every tensor of {principle.band} is "
            "frozen",
            hint="let these layers need a gradient, or put adapters into them, before "
            "the schedule is compiled",
        )
    return route
