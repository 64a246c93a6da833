"""A manifest, its chain and what was compared with a run, in words and as JSON."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from attest.cli._text import clean, moment, status_line
from attest.lineage import Link, Relation
from attest.manifest import Manifest

if TYPE_CHECKING:
    from attest.training.binding import Bound

__all__ = [
    "bound_lines",
    "chain_json",
    "chain_lines",
    "signed_words",
    "summary",
    "title",
    "validity",
    "weights",
]


def signed_words(manifest: Manifest, bound: "Bound | None", path: str) -> str:
    """What was signed, by whom, and where it lies."""
    return "\n".join(
        [
            f"signed {title(manifest)}",
            f"by {', '.join(manifest.signed_by)}",
            weights(manifest),
            validity(manifest),
            *bound_lines(bound),
            f"written to {clean(path)}",
        ]
    )


def bound_lines(bound: "Bound | None") -> list[str]:
    """One line for each part of a run that was compared with its statement."""
    if bound is None:
        return []
    return [status_line("ok", name, what) for name, what in bound.checked]


def chain_json(links: Sequence[Link], newer: Sequence[Manifest]) -> dict[str, Any]:
    """The manifests before and after this one."""
    chain = [
        {
            "relation": str(link.relation),
            "manifest": link.digest,
            "transformation": link.transformation,
            "model": None if link.manifest is None else _model(link.manifest),
        }
        for link in links
    ]
    return {"chain": chain, "supersededBy": [item.digest for item in newer]}


def chain_lines(links: Sequence[Link], newer: Sequence[Manifest]) -> list[str]:
    """One line for each manifest before or after this one."""
    lines = [f"superseded by {title(item)}" for item in newer]
    for link in links:
        words = f" ({clean(link.transformation)})" if link.transformation else ""
        what = f"{link.digest}, not at hand"
        if link.manifest is not None:
            what = title(link.manifest)
        lines.append(f"{link.relation} {what}{words}")
    return lines


def _model(manifest: Manifest) -> dict[str, str]:
    return {"name": manifest.model_name, "version": manifest.model_version}


def chain_status(
    links: Sequence[Link], missing: Link | None, *, asked: bool
) -> list[str]:
    """Whether the chain of parents was followed to its root."""
    parents = [link for link in links if link.relation is Relation.DERIVED_FROM]
    if not parents:
        return []
    if not asked:
        return [status_line("not checked", "chain", "no --chain FILE was given")]
    if missing is not None:
        number = parents.index(missing) + 1
        detail = f"link {number}, {missing.digest}, is not at hand"
        return [status_line("unknown", "chain", detail)]
    root = parents[-1].manifest
    where = "" if root is None else f" to {root.model_name} {root.model_version}"
    return [status_line("ok", "chain", f"{len(parents)} links{where}")]


def summary(manifest: Manifest) -> dict[str, Any]:
    """What a manifest is, in a few members."""
    return {
        "manifest": manifest.digest,
        "model": _model(manifest),
        "constitution": manifest.constitution,
        "files": len(manifest.subjects),
        "tensors": manifest.tensor_count,
        "tensorRoot": manifest.tensor_root,
        "signedBy": list(manifest.signed_by),
        "validity": manifest.predicate["validity"],
    }


def title(manifest: Manifest) -> str:
    """Name, version and digest."""
    name = clean(f"{manifest.model_name} {manifest.model_version}")
    return f"{name}, manifest {manifest.digest}"


def weights(manifest: Manifest) -> str:
    """How much the manifest covers."""
    return (
        f"{len(manifest.subjects)} files, {manifest.tensor_count} tensors, "
        f"root {manifest.tensor_root}"
    )


def validity(manifest: Manifest) -> str:
    """From when until when."""
    return f"valid from {moment(manifest.not_before)} to {moment(manifest.not_after)}"
