"""The routing schedule: which tensors each principle of a constitution may change.

Pure: a layout in, a schedule out. `attest.training.layout` reads the layout of a model.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from attest.canonical import canonical
from attest.digests import digest
from attest.errors import ConstitutionError
from attest.training.constitution import Constitution, Principle

__all__ = [
    "Layout",
    "Route",
    "Schedule",
    "anchor_counts",
    "compile_schedule",
    "layer_unit",
]


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
            before and `head` after them, `tied` for a tensor that is both.
    """

    architecture: str
    blocks: str
    count: int
    units: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Route:
    """What one principle may change.

    Attributes:
        layers: block numbers, ascending.
        tensors: names of the parameters, sorted; no other one may change.
        digest: of the RFC 8785 form of principle and tensors.
    """

    principle: str
    layers: tuple[int, ...]
    tensors: tuple[str, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class Schedule:
    """All routes of a constitution against one model."""

    layout: Layout
    routes: Mapping[str, Route]
    digest: str

    def route(self, principle: str) -> Route:
        """The route of a principle.

        Raises:
            ConstitutionError: the principle has none, as a batch of an anchored
                capability or of an unknown principle.
        """
        try:
            return self.routes[principle]
        except KeyError:
            known = ", ".join(self.routes)
            raise ConstitutionError(
                f"principle {principle!r} has no route; expected one of {known}",
                hint="give it a band in the constitution, or use its rows as anchors",
            ) from None


def compile_schedule(constitution: Constitution, layout: Layout) -> Schedule:
    """The schedule of a constitution against a model.

    A band takes whole blocks. Embeddings, final norm and head belong to no band, so
    they stay frozen while a principle is trained.

    Raises:
        ConstitutionError: a band holds no block of this model; names the principle.
    """
    routes = {p.id: _route(p, layout) for p in constitution.routed}
    described = [[route.principle, route.digest] for route in routes.values()]
    document = {
        "constitution": constitution.digest,
        "architecture": layout.architecture,
        "blocks": layout.blocks,
        "count": layout.count,
        "routes": described,
    }
    return Schedule(layout, routes, digest(canonical(document)))


def anchor_counts(principle: Principle, constitution: Constitution) -> dict[str, int]:
    """How many rows of each other principle join a batch of this one."""
    rest = principle.anchors.get("others", 0)
    counts = {
        other.id: principle.anchors.get(other.id, rest)
        for other in constitution.principles
        if other.id != principle.id
    }
    return {name: count for name, count in counts.items() if count}


def _route(principle: Principle, layout: Layout) -> Route:
    if principle.band is None:
        raise ConstitutionError(f"principle {principle.id!r} has no band")
    try:
        layers = principle.band.members(layout.count)
    except ConstitutionError as error:
        raise ConstitutionError(
            f"principle {principle.id!r}: {error}", hint=error.hint
        ) from error
    units = {layer_unit(layer) for layer in layers}
    tensors = tuple(sorted(n for n, unit in layout.units.items() if unit in units))
    content = {"principle": principle.id, "tensors": list(tensors)}
    return Route(principle.id, layers, tensors, digest(canonical(content)))
