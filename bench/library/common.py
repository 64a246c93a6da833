"""What the scripts of this folder share: a result, its verdict, and their table."""

import json
import os
import platform
import statistics
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
for folder in ("bench/gateway", "tests"):
    sys.path.append(str(ROOT / folder))

from meter import Noise  # noqa: E402  # the first part's: how much others took

__all__ = [
    "ROOT",
    "Result",
    "arguments",
    "finish",
    "grid",
    "medians",
    "started",
    "table",
]


@dataclass(frozen=True)
class Result:
    """One line of the table.

    Attributes:
        bar: the most that is allowed, or the least where `most` is false; None where
            nothing was aimed at and the figure is there for comparison.
        unit: of value and bar; `x` for a ratio.
        why_not: why there is no value.
    """

    text: str
    value: float | None
    unit: str
    bar: float | None = None
    most: bool = True
    why_not: str = ""

    @property
    def verdict(self) -> str:
        """`met`, `missed`, `not measured`, or nothing where there is no bar."""
        if self.value is None:
            return f"not measured: {self.why_not}"
        if self.bar is None:
            return ""
        kept = self.value <= self.bar if self.most else self.value >= self.bar
        return "met" if kept else "missed"

    def cells(self) -> list[str]:
        """The line as text."""
        sign = "≤" if self.most else "≥"
        bar = "" if self.bar is None else f"{sign} {self.bar:,g} {self.unit}"
        value = "" if self.value is None else f"{_short(self.value)} {self.unit}"
        return [self.text, bar, value, self.verdict]


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def grid(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; the first row is its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def table(results: Sequence[Result]) -> str:
    """Targets and what became of them."""
    head = ["target", "bar", "measured", ""]
    return grid([head, *(result.cells() for result in results)])


def medians(
    work: Callable[[Any], object], items: Sequence[Any]
) -> tuple[float, float, list[float]]:
    """Median wall and CPU seconds of `work` on each item, after the first one."""
    wall, cpu = [], []
    for number, item in enumerate(items):
        began, spent = time.perf_counter(), time.process_time()
        work(item)
        if number:
            wall.append(time.perf_counter() - began)
            cpu.append(time.process_time() - spent)
    return statistics.median(wall), statistics.median(cpu), wall


def arguments(doc: str | None, extra: Callable[[ArgumentParser], object]) -> Namespace:
    """Options of a script: `--quick`, `--out`, and its own."""
    parser = ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few and short rounds")
    parser.add_argument("--out", type=Path, help="write everything as JSON")
    extra(parser)
    return parser.parse_args()


def started() -> tuple[Noise, float]:
    """Where a script begins, for `finish`."""
    return Noise(), time.monotonic()


def finish(
    results: Sequence[Result],
    detail: Mapping[str, Any],
    options: Namespace,
    begun: tuple[Noise, float],
) -> None:
    """Print the table, and write it with everything behind it."""
    times = os.times()
    ours = times.user + times.system + times.children_user + times.children_system
    noise = begun[0].shares(ours)
    print(table(results))
    print(
        f"\n{time.monotonic() - begun[1]:.0f} s; others took {noise['others']:.0%} of "
        f"all cores, steal {noise['steal']:.1%}, load {noise['load']}"
    )
    if options.out is not None:
        value = {
            "command": " ".join(sys.argv),
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": f"{os.cpu_count()} x {platform.machine()}, Python "
            f"{platform.python_version()}",
            "noise": noise,
            "results": [asdict(r) | {"verdict": r.verdict} for r in results],
            "detail": detail,
        }
        options.out.write_text(json.dumps(value, indent=1) + "\n")
