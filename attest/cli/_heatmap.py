"""Profiles as a heat map for a terminal. Names are cleaned: they come from outside."""

import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from attest.cli._text import clean, shortened
from attest.training.profile.summary import Number, Row

__all__ = ["heat_map"]

# Shades that tell in a pipe too, where there are no colours.
_SHADES = " ░▒▓█"
# Up to so many layers there is room for percentages; beyond so many, cells share one.
_NUMBERED = 12
_MOST_CELLS = 80
_MOST_SOURCES = 8
_LEGEND = (
    "░▒▓█ share of what the layers took up, darkest for the largest of a row; "
    "━ the band it was routed to"
)
_OVER_CHUNKS = "± standard error over chunks of the probe, not over training seeds"
_OVER_SEEDS = "mean ± standard deviation over {} runs"


def heat_map(rows: Sequence[Row]) -> RenderableType:
    """A row of shaded layers per principle, its band marked, and the numbers beside."""
    size = _per_cell(rows)
    table = Table(box=None, padding=(0, 2, 0, 0))
    names = ("", _scale(rows), "H/log L", "depth", "centroid", "in band", "negative")
    for name in (*names, "residual", "cross-check"):
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(
            Text(shortened(row.principle, 24)),
            _layers(row, size),
            str(row.entropy_normalised),
            f"{row.effective_depth.value:.1f}",
            str(row.centroid),
            _or_dash(row.in_band),
            f"{row.negative_share.value:.0%}",
            f"{row.residual.value:.1%}",
            "-" if row.variation is None else f"{row.variation.value:.2f} away",
        )
    return Group(table, *map(Text, _notes(rows)), Text(""), _sources(rows))


def _sources(rows: Sequence[Row]) -> RenderableType:
    """Whose steps did it: where others' steps add loss, principles interfere."""
    names = list(dict.fromkeys(name for row in rows for name in row.by_source))
    names = names[:_MOST_SOURCES]
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("nats that fell by the steps of")
    for name in names:
        table.add_column(Text(shortened(name, 24)), justify="right")
    for row in rows:
        amounts = [row.by_source.get(name) for name in names]
        cells = ["-" if amount is None else f"{amount:+.2f}" for amount in amounts]
        table.add_row(Text(shortened(row.principle, 24)), *cells)
    return table


def _notes(rows: Sequence[Row]) -> list[str]:
    runs = max((row.runs for row in rows), default=1)
    size = _per_cell(rows)
    notes = [f"one cell is {size} layers"] if size > 1 else []
    notes += [_LEGEND, _OVER_SEEDS.format(runs) if runs > 1 else _OVER_CHUNKS]
    for row in rows:
        name = clean(row.principle)
        notes += [f"{name}: {verdict}" for verdict in sorted(set(row.verdicts))]
        if row.outside.value >= 0.005:
            notes.append(
                f"{name}: embeddings, norm and head took up {row.outside.value:.0%} "
                "beside the layers"
            )
    return notes


def _width(cells: int) -> int:
    return 5 if cells <= _NUMBERED else 2 if cells <= _MOST_CELLS // 2 else 1


def _per_cell(rows: Sequence[Row]) -> int:
    count = max((len(row.layers) for row in rows), default=0)
    return max(1, -(-count // _MOST_CELLS))


def _scale(rows: Sequence[Row]) -> str:
    size = _per_cell(rows)
    cells = -(-max((len(row.layers) for row in rows), default=0) // size)
    width = _width(cells)
    # A label needs four characters.
    step = -(-4 // width)
    labels = (f"L{n * size:02d}".ljust(width * step) for n in range(0, cells, step))
    return "".join(labels)[: width * cells]


def _layers(row: Row, size: int) -> Text:
    starts = range(0, len(row.layers), size)
    shares = [sum(row.layers[start : start + size]) for start in starts]
    width, top = _width(len(shares)), max(shares, default=0.0)
    banded = {layer // size for layer in row.band}
    shaded, marks = Text(), Text("\n")
    for cell, share in enumerate(shares):
        part = share / top if top else 0.0
        # Rounded up: whatever took up anything is seen.
        shade = _SHADES[math.ceil(part * (len(_SHADES) - 1))]
        text = f"{shade}{100 * share:>3.0f} " if width == 5 else shade * width
        red, green = 215 - round(175 * part), 225 - round(100 * part)
        shaded.append(text, style=f"rgb({red},{green},255)")
        marks.append(
            ("━" * (width - width // 5) if cell in banded else "").ljust(width)
        )
    return shaded + marks


def _or_dash(number: Number | None) -> str:
    return "-" if number is None else str(number)
