"""Where a manifest comes from: the manifests that it replaces, and the base models.

A manifest refers to others by digest, so whoever has the child knows exactly which
parent it means; the parent's own signature is another question, and is answered apart.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from attest._reader import Reader
from attest.derivation import Rel
from attest.errors import FormatError, VerificationError
from attest.manifest import Manifest

__all__ = ["ChainError", "Link", "Relation", "check_chain", "lineage", "successors"]

# A chain of digests can't be a circle, but it can be long.
_MAX_LINKS = 64


class ChainError(VerificationError):
    """A link of a chain of models is unsigned, or is not what the child says of it."""

    code = "chain"


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


def check_chain(manifest: Manifest, links: Sequence[Link]) -> Link | None:
    """The first parent that is not at hand; None when the chain reaches its root.

    What each child says of its parent must hold: the parent's tensors, that they are
    its own where it was only re-sharded, and all that it carries over unmeasured. NOT
    checked: signatures, which the caller has, and the validity of parents, since what
    they say of their training does not age.

    Args:
        manifest: where the chain begins.
        links: of `lineage`.

    Raises:
        ChainError: a child says of its parent what is not so; names the link.
        FormatError: a derivation has no form that this version knows.
    """
    child = manifest
    for link in links:
        if link.relation is not Relation.DERIVED_FROM:
            continue
        if link.manifest is None:
            return link
        _check_link(child, link.manifest)
        child = link.manifest
    return None


def _check_link(child: Manifest, parent: Manifest) -> None:
    derivation = Reader(child.predicate, "$.predicate").child("derivation")
    rel = str(derivation.value.get("rel", ""))
    stated = derivation.optional_digest("parentWeights")
    if stated is not None and stated != parent.tensor_root:
        raise _broken(child, "its parent's tensors", parent.tensor_root, stated)
    if rel == Rel.RESHARDED_FROM and child.tensor_root != parent.tensor_root:
        raise _broken(child, "its tensors", parent.tensor_root, child.tensor_root)
    base = _first_base(child)
    if base is not None and base != parent.tensor_root:
        raise _broken(child, "the base of its training", parent.tensor_root, base)
    allowed = _CARRIED.get(rel, frozenset())
    if rel == Rel.MERGED_FROM and not _is_merge_of_adapter(derivation, parent):
        allowed = frozenset()
    theirs = {item.get("id"): item for item in _objects(parent, "principles")}
    for mine in _objects(child, "principles"):
        for member in ("profile", "evaluation", "resistance"):
            _check_carried(child, mine, theirs, member, allowed=member in allowed)


def _is_merge_of_adapter(derivation: Reader, parent: Manifest) -> bool:
    """Whether a merge was made again to the bit, of an adapter that was trained."""
    theirs = parent.predicate.get("derivation")
    rel = theirs.get("rel") if isinstance(theirs, dict) else None
    return derivation.value.get("reproduced") is True and rel == Rel.ADAPTER_OF


# What a child may carry over, by what was done to the parent.
_CARRIED: Mapping[str, frozenset[str]] = {
    Rel.RESHARDED_FROM: frozenset({"profile", "evaluation", "resistance"}),
    Rel.MERGED_FROM: frozenset({"profile"}),
}
# Marks of the child's own, which the parent's member need not have.
_MARKS = frozenset({"carried", "shortfall"})


def _check_carried(
    child: Manifest,
    mine: Mapping[str, Any],
    theirs: Mapping[Any, Mapping[str, Any]],
    member: str,
    *,
    allowed: bool,
) -> None:
    value = mine.get(member)
    if not isinstance(value, dict) or value.get("carried") is not True:
        return
    name = mine.get("id")
    original = theirs.get(name, {}).get(member)
    what = f"the {member} of principle {name!r} that it carries"
    if not allowed:
        raise _broken(child, what, "it measured anew", "carried")
    if not isinstance(original, dict) or _bare(value) != _bare(original):
        raise _broken(child, what, "the parent's", "another")


def _bare(member: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in member.items() if key not in _MARKS}


def _objects(manifest: Manifest, member: str) -> list[Mapping[str, Any]]:
    items = manifest.predicate.get(member)
    return [i for i in items if isinstance(i, dict)] if isinstance(items, list) else []


def _first_base(child: Manifest) -> Any:
    training = child.predicate.get("training")
    stages = training.get("stages") if isinstance(training, dict) else None
    first = stages[0] if isinstance(stages, list) and stages else None
    return first.get("base") if isinstance(first, dict) else None


def _broken(child: Manifest, what: str, expected: str, found: str) -> ChainError:
    return ChainError(
        f"chain: link of {child.model_name} {child.model_version} ({child.digest}) to "
        f"{child.parent}: {what}: expected {expected}, found {found}",
        hint="the chain proves nothing beyond this link; ask who signed the child",
    )
