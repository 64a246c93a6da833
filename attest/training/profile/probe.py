"""Probes: held-out rows whose loss a profile explains."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from attest.canonical import canonical
from attest.digests import digest
from attest.errors import ProfileError
from attest.training.batches import Example, collate
from attest.training.routing import Schedule

__all__ = ["Probe", "make_probe", "make_probes"]


@dataclass(frozen=True, slots=True)
class Probe:
    """The held-out rows of one principle, in chunks.

    Attributes:
        band: blocks that the principle is routed to; empty where it has no route.
        whole: keyword arguments of the model, labels included, for all rows.
        chunks: the same for each chunk.
        weights: answer tokens of each chunk.
        digest: of the chunks' content and order.
    """

    principle: str
    band: tuple[int, ...]
    whole: dict[str, Any]
    chunks: tuple[dict[str, Any], ...]
    weights: tuple[int, ...]
    rows: int
    digest: str


def make_probes(
    examples: Sequence[Example], schedule: Schedule, *, pad: int, chunks: int = 4
) -> tuple[Probe, ...]:
    """One probe per principle of the schedule, its rows dealt to `chunks` in turn.

    The rows should be none that a recipe was chosen by, and none that trained.

    Raises:
        ProfileError: a principle has fewer rows than chunks.
    """
    return tuple(
        make_probe(
            name,
            [example for example in examples if example.principle == name],
            band=route.layers,
            pad=pad,
            chunks=chunks,
        )
        for name, route in schedule.routes.items()
    )


def make_probe(
    name: str,
    rows: Sequence[Example],
    *,
    pad: int,
    chunks: int,
    band: tuple[int, ...] = (),
) -> Probe:
    """The probe of one principle, of these rows.

    Raises:
        ProfileError: fewer rows than chunks, or no rows.
    """
    if len(rows) < max(chunks, 1):
        raise ProfileError(
            f"probe of {name!r}: expected at least {max(chunks, 1)} held-out rows, "
            f"found {len(rows)}",
            hint="add held-out rows of this principle, or profile it in fewer chunks",
        )
    batches = [collate(rows[start::chunks], pad=pad) for start in range(chunks)]
    return Probe(
        principle=name,
        band=band,
        whole=collate(rows, pad=pad).tensors,
        chunks=tuple(batch.tensors for batch in batches),
        weights=tuple(sum(len(e.answer) for e in b.examples) for b in batches),
        rows=len(rows),
        digest=digest(canonical([batch.digest for batch in batches])),
    )
