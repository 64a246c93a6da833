"""A diagnosis for people."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from attest.cli._text import clean, rendered, shortened
from attest.training.profile.diagnosis import Diagnosis, Steps

__all__ = ["diagnosis_text"]

_LIMITS = (
    "that these layers or steps are the cause: they are what helps when it is undone",
    "anything beyond the held-out rows",
)
_METHODS = {
    "lca": "by the loss that each was measured to move there",
    "energy": "by how far each moved them, which cannot tell help from harm",
}


def diagnosis_text(found: Sequence[Diagnosis], top: int) -> str:
    """One paragraph per principle, and what is not proven."""
    lines = [line for item in found for line in _lines(item, top)]
    return "\n".join([*lines, *(f"  not proven: {limit}" for limit in _LIMITS)])


def _lines(found: Diagnosis, top: int) -> list[str]:
    fall, name = found.fall, clean(found.principle)
    kept = ""
    if found.kept is not None:
        kept = f"; {found.kept[0]} of {fall.rows} kept it, now {found.kept[1]}"
    words = (
        f"{name}: {fall.verdict.upper()}: its answers are {fall.mean:+.2f} nats less "
        f"likely ({fall.low:+.2f} to {fall.high:+.2f} over {fall.rows} rows){kept}"
    )
    lines = [words]
    if fall.verdict == "cannot tell":
        lines.append("  more held-out rows would tell")
    if found.units:
        lines.append(rendered(_layers(found)))
        lines.append(
            f"responsible: {', '.join(map(clean, found.responsible))}; set back "
            f"together they recover {found.recovered:.0%}"
        )
    lines += _steps("steps of the run that had built it", found.built, top)
    lines += _steps("steps of the later ledger that undid it", found.broke, top)
    return lines + [f"note: {clean(note)}" for note in found.notes]


def _layers(found: Diagnosis) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("unit", "recovers, set back", "destroys, alone", "share", "leads in"):
        table.add_column(name)
    for unit in found.units:
        table.add_row(
            Text(clean(unit.unit)),
            f"{unit.restore:+.2f}",
            f"{unit.insert:+.2f}",
            f"{unit.share:.0%}",
            f"{unit.first:.0%}",
        )
    return Group(table, Text("nats per answer; leads in: of resampled rows"))


def _steps(title: str, steps: Steps | None, top: int) -> list[str]:
    if steps is None:
        return []
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("record", "stage", "step", "principle", "share", "rows"):
        table.add_column(name)
    for step in steps.ranked[:top]:
        table.add_row(
            str(step.seq),
            Text(shortened(step.stage, 24)),
            str(step.step),
            Text(shortened(step.principle, 24)),
            f"{step.share:.1%}",
            Text(shortened(", ".join(step.samples), 60)),
        )
    head = f"{title}, {_METHODS[steps.method]}; {len(steps.ranked)} of {steps.of}"
    return [head, rendered(table)]
