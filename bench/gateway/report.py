"""The table, the verdicts, and a plot, of the rows of one run."""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from phases import Row
from targets import TARGETS, Table

__all__ = ["text", "write"]

_COLUMNS = (
    ("json 1", "added p50 ms", lambda t, p: _ms(t.added("json 1", p, _p50))),
    ("json 32", "CPU µs", lambda t, p: _us(t.median("json 32", p, _cpu))),
    ("json 32", "req/s", lambda t, p: _whole(t.median("json 32", p, _rate))),
    ("json 256", "CPU µs", lambda t, p: _us(t.median("json 256", p, _cpu))),
    ("json 256", "req/s", lambda t, p: _whole(t.median("json 256", p, _rate))),
    ("paced 50", "CPU µs/chunk", lambda t, p: _us(t.median("paced 50", p, _cpu))),
    ("paced 50", "+TTFT ms", lambda t, p: _ms(t.added("paced 50", p, _first))),
    ("paced 50", "+token ms", lambda t, p: _ms(t.added("paced 50", p, _lag))),
    ("paced 200", "chunks/s", lambda t, p: _whole(t.median("paced 200", p, _rate))),
    ("burst 64", "chunks/s", lambda t, p: _whole(t.median("burst 64", p, _rate))),
    ("embed 1 MB", "CPU µs", lambda t, p: _us(t.median("embed 1 MB", p, _cpu))),
    ("idle", "kB/stream", lambda t, p: _kb(t.median("idle", p, _each))),
)


def _p50(row: Row) -> float:
    return row.p50


def _cpu(row: Row) -> float:
    return row.cpu


def _rate(row: Row) -> float:
    return row.rate


def _first(row: Row) -> float:
    return row.first50


def _lag(row: Row) -> float:
    return row.lag50


def _each(row: Row) -> float:
    return row.bytes_each


def _us(value: float | None) -> str:
    return "" if not value else f"{value * 1e6:.0f}"


def _ms(value: float | None) -> str:
    return "" if not value else f"{value * 1e3:.2f}"


def _kb(value: float | None) -> str:
    return "" if not value else f"{value / 1e3:.0f}"


def _whole(value: float | None) -> str:
    return "" if not value else f"{value:,.0f}"


def _grid(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def text(rows: Sequence[Row], names: Sequence[str], killed: dict[str, float]) -> str:
    """Both tables in Markdown: what was measured, and what was aimed at."""
    table = Table(rows, killed)
    head = ["", *(f"{phase}: {what}" for phase, what, _ in _COLUMNS)]
    body = [[name, *(get(table, name) for _, _, get in _COLUMNS)] for name in names]
    aims = [["target", "bar", "stretch", "measured", ""]]
    for target in TARGETS:
        value, word = target.verdict(table)
        sign = "≤" if target.most else "≥"
        aims.append(
            [
                target.text,
                f"{sign} {target.bar:.3g} {target.unit}",
                f"{sign} {target.stretch:.3g} {target.unit}",
                "" if value is None else f"{value:.3g} {target.unit}",
                word,
            ]
        )
    return _grid([head, *body]) + "\n\n" + _grid(aims)


def noise(rows: Sequence[Row]) -> str:
    """How quiet the machine was, in one line."""
    others = sorted(row.noise.get("others", 0.0) for row in rows if row.noise)
    steal = max((row.noise.get("steal", 0.0) for row in rows), default=0.0)
    load = sorted(row.noise.get("load", 0.0) for row in rows if row.noise)
    if not others:
        return "noise: not measured"
    middle, last = others[len(others) // 2], others[-1]
    quiet = "quiet" if middle < 0.05 and last < 0.2 else "NOT QUIET: ratios only"
    return (
        f"machine: {quiet}; others took {middle:.0%} of all cores in the median phase, "
        f"{last:.0%} at worst; steal {steal:.1%} at worst; load {load[0]}-{load[-1]}"
    )


def write(
    folder: Path, rows: Sequence[Row], names: Sequence[str], about: dict[str, Any]
) -> None:
    """`gateway.json` and `gateway.svg`."""
    folder.mkdir(parents=True, exist_ok=True)
    table = Table(rows, about["killed"])
    verdicts = {
        target.text: dict(zip(("value", "verdict"), target.verdict(table), strict=True))
        for target in TARGETS
    }
    value = {**about, "targets": verdicts, "rows": [row.dump() for row in rows]}
    (folder / "gateway.json").write_text(json.dumps(value, indent=1) + "\n")
    (folder / "gateway.svg").write_text(_plot(table, names))


def _plot(table: Table, names: Sequence[str]) -> str:
    """CPU per request and per chunk as bars, on a scale of powers of ten."""
    parts, y = [], 30
    for phase, title in (
        ("json 32", "CPU µs per request, 32 clients"),
        ("paced 50", "CPU µs per chunk, 50 streams"),
    ):
        parts.append(f'<text x="10" y="{y}" font-weight="bold">{escape(title)}</text>')
        for name in names:
            value = table.median(phase, name, _cpu)
            if not value:
                continue
            y += 20
            width = 60 * len(f"{int(value * 1e6)}") + 6 * int(f"{value * 1e6:.0f}"[0])
            parts += [
                f'<text x="10" y="{y}">{escape(name)}</text>',
                f'<rect x="120" y="{y - 11}" width="{width}" height="13" fill="#47a"/>',
                f'<text x="{width + 126}" y="{y}">{value * 1e6:.0f}</text>',
            ]
        y += 40
    style = 'font-family="sans-serif" font-size="13"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="560" height="{y}" {style}>'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )
