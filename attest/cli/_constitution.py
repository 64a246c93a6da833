"""Constitutions, schedules and their differences as words and pictures."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from attest.cli._text import clean, rendered, shortened, status_line
from attest.training.constitution import Constitution, Principle
from attest.training.principles import UNITS
from attest.training.revision import Part, Revision
from attest.training.routing import Schedule
from attest.training.selection import Survey

__all__ = ["check_text", "diff_text", "principle_json", "schedule_text"]

# Beside the words of a row this fits a terminal of 120 columns.
_MAX_CELLS = 64
_ALL, _SOME, _NONE = "█", "▒", "·"


def principle_json(principle: Principle, counted: Survey | None) -> dict[str, Any]:
    """What `check` says of a principle, for `--format json`."""
    asked = principle.requirement
    value: dict[str, Any] = {
        "id": principle.id,
        "class": principle.kind,
        "digest": principle.digest,
        "band": str(principle.band) if principle.band else None,
        "anchors": dict(principle.anchors),
        "requirement": None
        if asked is None
        else {
            "suite": asked.attack_suite,
            "minStepsBelowHalf": asked.min_steps_below_half,
            "onMiss": asked.on_miss,
        },
    }
    if counted is not None:
        value["rows"] = dict(counted.rows[principle.id])
        value["heldout"] = counted.heldout.get(principle.id)
    return value


def check_text(constitution: Constitution, counted: Survey | None) -> str:
    """One row per principle; `counted` adds its rows."""
    columns = ["principle", "class", "band", "anchors", "must resist"]
    columns += ["rows", "held out"] if counted else []
    table = _table(columns)
    for principle in constitution.principles:
        cells = [principle.id, principle.kind, str(principle.band or "anchored only")]
        cells.append(", ".join(f"{n} {name}" for name, n in principle.anchors.items()))
        asked = principle.requirement
        steps = asked and f"{asked.min_steps_below_half} steps, else {asked.on_miss}"
        cells.append(steps or "")
        if counted:
            cells.append(str(sum(counted.rows[principle.id].values())))
            cells.append(str(counted.heldout.get(principle.id, "")))
        _row(table, cells)
    lines = [_title(constitution), constitution.digest, "", rendered(table)]
    for file, count in sorted(counted.unselected.items()) if counted else ():
        lines.append(f"{clean(file)}: {count} rows belong to no principle")
    return "\n".join(lines)


def schedule_text(
    constitution: Constitution, schedule: Schedule, path: Path | None
) -> str:
    """The routing table as a picture: one row per principle, one cell per block."""
    layout = schedule.layout
    present = [u for u in UNITS if u in layout.units.values()]
    cells = _cells(layout.count)
    before = [u for u in present if u == "stem"]
    after = [u for u in present if u != "stem"]
    ruler = "".join(_ruler(cells))
    table = _table(["principle", "class", *before, ruler, *after, "tensors"])
    for principle in constitution.principles:
        route = schedule.routes.get(principle.id)
        layers, units = (route.layers, route.units) if route else ((), ())
        marks = {unit: _ALL if unit in units else _NONE for unit in present}
        drawn = "".join(_cell(cell, layers) for cell in cells)
        row = [principle.id, principle.kind, *(marks[unit] for unit in before), drawn]
        row += [marks[unit] for unit in after]
        _row(table, [*row, str(len(route.tensors)) if route else "anchored only"])
    blocks = f"{layout.count} blocks in {clean(layout.blocks)}"
    lines = [
        f"{_title(constitution)} for {clean(layout.architecture)}: {blocks}",
        f"schedule {schedule.digest}",
        "",
        rendered(table),
        "",
        *_legend(schedule, cells),
    ]
    return "\n".join([*lines, f"written to {clean(str(path))}"] if path else lines)


def diff_text(old: Constitution, new: Constitution, found: Revision) -> str:
    """Every change and the part of the version that it calls for, then the verdict."""
    table = _table(["principle", "change", "calls for"])
    for change in found.changes:
        name = change.principle or "(all)"
        _row(table, [name, shortened(change.words, 1000), str(change.part)])
    lines = [f"{clean(old.id)} {old.version} → {new.version}"]
    if found.changes:
        lines += ["", rendered(table), ""]
    if found.needed is Part.NONE:
        detail = "nothing changed but perhaps the version"
        detail += "" if found.enough else f", and {new.version} is an earlier one"
    else:
        detail = f"calls for {found.least} or later ({found.needed})"
        detail += "" if found.enough else f", and {new.version} is not"
    lines.append(
        status_line("ok" if found.enough else "FAILED", "version", detail).rstrip()
    )
    return "\n".join(lines)


def _title(constitution: Constitution) -> str:
    return f"{clean(constitution.id)} {constitution.version}"


def _table(columns: Sequence[str]) -> Any:
    from rich.table import Table  # noqa: PLC0415  # JSON output needs no tables

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _row(table: Any, cells: Sequence[str]) -> None:
    from rich.text import Text  # noqa: PLC0415

    # As text: a plain string would be searched for markup such as [red].
    table.add_row(*(Text(clean(cell)) for cell in cells))


def _cells(count: int) -> list[range]:
    """The blocks of every cell: one block each, more where a row would be too long."""
    width = -(-count // _MAX_CELLS)
    return [range(n, min(n + width, count)) for n in range(0, count, width)]


def _cell(blocks: range, layers: Sequence[int]) -> str:
    held = sum(block in layers for block in blocks)
    return _ALL if held == len(blocks) else _SOME if held else _NONE


def _ruler(cells: Sequence[range]) -> Iterator[str]:
    """Block numbers over the cells, each starting at its own cell."""
    written = 0
    for place, cell in enumerate(cells):
        if place < written:
            continue
        number = str(cell.start)
        fits = place + len(number) <= len(cells)
        text = number if place % 8 == 0 and fits else " "
        written = place + len(text)
        yield text


def _legend(schedule: Schedule, cells: Sequence[range]) -> Iterator[str]:
    yield f"{_ALL} may change   {_NONE} stays frozen"
    if len(cells[0]) > 1:
        yield f"{_SOME} some of the {len(cells[0])} blocks of a cell may"
    units = schedule.layout.units
    aside = sum(unit == "aside" for unit in units.values())
    if aside:
        yield f"{aside} tensors that text does not reach stay frozen"
    if schedule.layout.frozen:
        frozen = len(schedule.layout.frozen)
        yield f"{frozen} of {len(units)} tensors are frozen for every principle"
