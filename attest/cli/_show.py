"""A manifest as a tree. Its content is unverified, so every value is cleaned."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from attest.cli._text import clean, moment, shortened
from attest.manifest import Manifest

__all__ = ["heat", "manifest_tree"]

_BLOCKS = "·▁▂▃▄▅▆▇█"
_MAX_ROWS = 64
_Pairs = Sequence[tuple[str, str]]


def manifest_tree(manifest: Manifest, keyids: Sequence[str]) -> RenderableType:
    """The whole manifest, readable on one screen where it can be."""
    title = f"{manifest.model_name} {manifest.model_version}"
    tree = Tree(Text(clean(title), style="bold"))
    _rows(
        tree.add("manifest"),
        {"digest": manifest.digest, "said to be signed by": ", ".join(keyids)},
    )
    _constitution(tree, manifest)
    _principles(tree, manifest.predicate.get("principles"))
    _weights(tree, manifest)
    _members(
        tree,
        manifest.predicate,
        ("training", "evaluation", "derivation", "trustAnchors"),
    )
    _runtime(tree, manifest)
    _delegations(tree, manifest)
    _rows(
        tree.add("validity"),
        {"from": moment(manifest.not_before), "to": moment(manifest.not_after)},
    )
    limits = manifest.predicate.get("limits")
    if isinstance(limits, list) and limits:
        branch = tree.add("limits, in the trainer's words")
        for limit in limits[:_MAX_ROWS]:
            branch.add(Text(shortened(limit, 200)))
    return tree


def heat(values: Any) -> str:
    """One block per layer, the tallest for the largest share; "" if it is no profile.

    Shares come as decimal strings, since signed documents hold no floats.
    """
    try:
        shares = [float(value) for value in values]
        top = max(shares)
        return "".join(_BLOCKS[round(8 * max(share, 0.0) / top)] for share in shares)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return ""


def _rows(tree: Tree, rows: Mapping[str, str], more: _Pairs = ()) -> None:
    # One grid per branch, so that names and values stand in columns.
    grid = Table.grid(padding=(0, 2))
    for name, value in (*rows.items(), *more):
        grid.add_row(Text(name, style="dim"), Text(clean(value), overflow="fold"))
    tree.add(grid)


def _constitution(tree: Tree, manifest: Manifest) -> None:
    if manifest.constitution is None:
        tree.add(Text("constitution: none; this is evidence about weights alone"))
    else:
        _rows(tree.add("constitution"), manifest.constitution)


def _principles(tree: Tree, principles: Any) -> None:
    if not isinstance(principles, list) or not principles:
        return
    table = Table(box=None)
    columns = ("id", "class", "band", "layers", "profile", "in band", "resistance")
    for column in columns:
        table.add_column(column, overflow="fold")
    for principle in principles[:_MAX_ROWS]:
        if isinstance(principle, dict):
            table.add_row(*map(Text, _principle(principle)))
    more = len(principles) - _MAX_ROWS
    note = [Text(f"and {more} more")] if more > 0 else []
    tree.add("principles").add(Group(table, *note))


def _principle(principle: Mapping[str, Any]) -> list[str]:
    routing, profile = (_object(principle.get(key)) for key in ("routing", "profile"))
    return [
        shortened(principle.get("id", "")),
        shortened(principle.get("class", "")),
        _band(routing.get("band")),
        shortened(routing.get("layers", "")),
        _profile(profile),
        shortened(profile.get("inBand", "")),
        _resistance(_object(principle.get("resistance"))),
    ]


def _profile(profile: Mapping[str, Any]) -> str:
    blocks = heat(profile.get("layers")) or "not measured"
    marks = [
        word
        for word, holds in {
            "INVALID": profile.get("valid") is False,
            "carried": profile.get("carried") is True,
            "of parent": profile.get("of") == "parent",
        }.items()
        if holds
    ]
    return " ".join([blocks, *marks])


def _resistance(resistance: Mapping[str, Any]) -> str:
    """Steps until half was lost under the worst attack, and whether that is enough."""
    worst = _object(_object(resistance.get("measured")).get("worst"))
    required = _object(resistance.get("required"))
    found = shortened(worst.get("stepsBelowHalf", "not measured"))
    parts = [f">{found}" if worst.get("censored") is True else found]
    if required:
        parts.append(f"of {shortened(required.get('minStepsBelowHalf', ''))}")
        parts.append("met" if resistance.get("met") is True else "NOT MET")
    return " ".join(parts) if resistance else ""


def _band(band: Any) -> str:
    """A band is written in thousandths of the depth."""
    match band:
        case {"from": int(start), "to": int(end)}:
            return f"{start / 10:g} % to {end / 10:g} %"
    return shortened(band or "")


def _weights(tree: Tree, manifest: Manifest) -> None:
    sharding = "free" if manifest.free_sharding else "as listed"
    rows = {
        "tensor root": manifest.tensor_root,
        "tensors": str(manifest.tensor_count),
        "files": str(len(manifest.subjects)),
        "sharding": sharding,
    }
    _rows(tree.add("weights"), rows)


def _members(tree: Tree, predicate: Mapping[str, Any], names: Sequence[str]) -> None:
    """Members whose inner form is the trainer's: shown as they are, cut short."""
    for name in names:
        value = predicate.get(name)
        if isinstance(value, dict) and value:
            items = list(value.items())[:_MAX_ROWS]
            rows = {shortened(key): shortened(item, 120) for key, item in items}
            _rows(tree.add(name), rows)
        elif isinstance(value, list) and value:
            branch = tree.add(name)
            for item in value[:_MAX_ROWS]:
                branch.add(Text(shortened(item, 120)))


def _runtime(tree: Tree, manifest: Manifest) -> None:
    runtime = manifest.runtime
    rows = {
        name: ", ".join(values) or "none allowed"
        for name, values in (
            ("engines", runtime.engines),
            ("dtypes", runtime.dtypes),
            ("quantizations", runtime.quantizations),
            ("adapters", runtime.adapters),
        )
    }
    # No mapping: two prompts may have the same name, and both must be seen.
    prompts = [
        (f"system prompt {clean(name)}", found)
        for found, name in runtime.system_prompts.items()
    ]
    _rows(tree.add("runtime: what may be served, and how"), rows, prompts)


def _delegations(tree: Tree, manifest: Manifest) -> None:
    branch = tree.add("delegations")
    if not manifest.delegations:
        branch.add(Text("none: only the authority itself certifies gateways"))
    for item in manifest.delegations:
        words = f"{item.key.thumbprint} as {item.role} until {moment(item.not_after)}"
        branch.add(Text(clean(words)))


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
