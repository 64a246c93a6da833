"""Where a manifest comes from: the manifests that it replaces, and the base models.

A manifest refers to others by digest, so whoever has the child knows exactly which
parent it means; the parent's own signature is another question, and is answered apart.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from attest.errors import FormatError
from attest.manifest import Manifest

__all__ = ["Link", "Relation", "lineage", "successors"]

# A chain of digests can't be a circle, but it can be long.
_MAX_LINKS = 64


class Relation(StrEnum):
    """How a manifest of a chain is related to the one before it."""

    SUPERSEDES = "supersedes"
    DERIVED_FROM = "derived from"


@dataclass(frozen=True, slots=True)
class Link:
    """One step back.

    Attributes:
        digest: of the manifest that is meant.
        transformation: what was done to the parent's weights, as the child says.
        manifest: it, where it is at hand.
    """

    relation: Relation
    digest: str
    transformation: str
    manifest: Manifest | None


def lineage(manifest: Manifest, known: Mapping[str, Manifest]) -> tuple[Link, ...]:
    """The parents of a model, then the manifests that this one replaced, each in order.

    Args:
        manifest: where to begin.
        known: manifests at hand, by digest. A chain ends at one that is not.

    Raises:
        FormatError: a chain of more than 64 links.
    """
    parents = _walk(manifest, known, Relation.DERIVED_FROM)
    return (*parents, *_walk(manifest, known, Relation.SUPERSEDES))


def _walk(
    manifest: Manifest, known: Mapping[str, Manifest], relation: Relation
) -> Iterable[Link]:
    links: list[Link] = []
    current: Manifest | None = manifest
    while current is not None:
        derived = relation is Relation.DERIVED_FROM
        digest = current.parent if derived else current.supersedes
        if digest is None:
            break
        if len(links) == _MAX_LINKS:
            raise FormatError(f"lineage: more than {_MAX_LINKS} manifests in a chain")
        words = current.transformation if derived else ""
        current = known.get(digest)
        links.append(Link(relation, digest, words, current))
    return links


def successors(manifest: Manifest, known: Iterable[Manifest]) -> tuple[Manifest, ...]:
    """Those of the manifests at hand that replace this one."""
    return tuple(item for item in known if item.supersedes == manifest.digest)
