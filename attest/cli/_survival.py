"""Resistance for a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from attest.cli._text import clean, shortened
from attest.training.resistance.survival import Duration, Point, kaplan_meier, median
from attest.training.resistance.values import Resistance, Run, Worst

__all__ = ["resistance_json", "resistance_tables", "stated_table"]

_BLOCKS = "·▁▂▃▄▅▆▇█"
_MARKS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_LISTED_RUNS = 5


def resistance_tables(found: Resistance) -> RenderableType:
    """One table per principle: every attack with its durations and survival curve."""
    parts: list[RenderableType] = []
    for name, start in found.starts.items():
        title = (
            f"{name}: {start.kept} of {start.count} kept before; "
            f"{_soonest(found.worst(name))}"
        )
        parts += [Text(clean(title), style="bold"), _table(found, name)]
        parts += [
            Text(clean(f"  control {other}: {_soonest(control.worst(name))}"))
            for other, control in found.controls.items()
        ]
    marks = " ".join(map(str, _marks(found)))
    parts.append(
        Text(
            f"Steps until fewer than half of what was kept before was kept; >N: still "
            f"kept after N.\nCurves: share of runs that keep it after {marks} steps.\n"
            "Use: items of capabilities answered before and after the worst run.\n"
            "Attacks that were not tried may take fewer steps."
        )
    )
    return Group(*parts)


def resistance_json(found: Resistance) -> dict[str, Any]:
    """The file's content without single runs, and what follows from them."""
    principles: dict[str, Any] = {}
    for name in found.starts:
        attacks = []
        for attack, rate, runs in _rows(found, name):
            durations = [run.duration for run in runs]
            attacks.append(
                {
                    "attack": attack,
                    "rate": rate,
                    "durations": [_duration(d) for d in sorted(durations)],
                    "median": _duration(median(durations)),
                    "diverged": sum(run.ended == "diverged" for run in runs),
                    "survival": [_point(p) for p in kaplan_meier(durations)],
                }
            )
        worst = found.worst(name)
        principles[name] = {
            "kept": found.starts[name].kept,
            "count": found.starts[name].count,
            "worst": None if worst is None else _worst(worst),
            "notRun": list(found.not_run(name)),
            "attacks": attacks,
            "controls": {
                other: None if (w := control.worst(name)) is None else _worst(w)
                for other, control in found.controls.items()
            },
        }
    return {
        "suite": found.suite.name,
        "suiteDigest": found.suite.digest,
        "constitution": found.constitution,
        "weights": found.weights,
        "digest": found.digest,
        "principles": principles,
    }


def stated_table(principles: Sequence[Any]) -> RenderableType:
    """What a manifest says of resistance, unverified: one row per principle."""
    table = Table(box=None)
    for column in ("principle", "suite", "required", "soonest lost", "met", "curves"):
        table.add_column(column, overflow="fold")
    for principle in principles:
        if not isinstance(principle, dict):
            continue
        stated = _object(principle.get("resistance"))
        measured = _object(stated.get("measured"))
        required = _object(stated.get("required"))
        worst = _object(measured.get("worst"))
        steps = worst.get("stepsBelowHalf", "")
        more = ">" if worst.get("censored") is True else ""
        lost = f"{more}{steps} under {worst.get('attack', '')}" if worst else ""
        met = {True: "yes", False: "NO"}.get(stated.get("met"), "")  # type: ignore[arg-type]
        cells = (
            principle.get("id", ""),
            stated.get("suite", ""),
            required.get("minStepsBelowHalf", ""),
            lost or "not measured",
            met,
            measured.get("curves", ""),
        )
        table.add_row(*(Text(shortened(cell)) for cell in cells))
    return table


def _table(found: Resistance, principle: str) -> Table:
    table = Table(box=None)
    columns = ("attack", "rate", "lost after", "survival", "at the first loss", "use")
    for column in columns:
        table.add_column(column, overflow="fold")
    before = sum(found.before[n][0] for n in found.capabilities if n in found.before)
    for attack, rate, runs in _rows(found, principle):
        durations = sorted(run.duration for run in runs)
        points = kaplan_meier(durations)
        curve = "".join(_block(points, mark) for mark in _marks(found))
        left = [found.utility(run) for run in runs]
        worst_use = min((u for u in left if u), default=None)
        table.add_row(
            clean(attack),
            clean(rate),
            _listed(durations, runs),
            curve if attack != "restore" else "",
            _interval(points, durations[0]) if attack != "restore" else "",
            ""
            if worst_use is None
            else f"{before} to {worst_use[0]} of {worst_use[1]}",
        )
    return table


def _rows(found: Resistance, principle: str) -> Iterator[tuple[str, str, list[Run]]]:
    for attack in found.suite.attacks:
        for rate in attack.rates or ("0",):
            if runs := found.of(principle, attack.kind, rate):
                yield attack.kind, rate, runs


def _listed(durations: Sequence[Duration], runs: Sequence[Run]) -> str:
    text = " ".join(map(str, durations))
    if len(durations) > _LISTED_RUNS:
        text = f"{durations[0]} to {durations[-1]}, median {median(durations)}"
    diverged = sum(run.ended == "diverged" for run in runs)
    return f"{text} ({diverged} diverged)" if diverged else text


def _block(points: Sequence[Point], step: int) -> str:
    share = next((p.share for p in reversed(points) if p.steps <= step), 1.0)
    return _BLOCKS[round(8 * share)]


def _interval(points: Sequence[Point], first: Duration) -> str:
    point = next(p for p in points if p.steps == first.steps)
    return f"{point.share:.2f} ({point.low:.2f}-{point.high:.2f}) at {point.steps}"


def _marks(found: Resistance) -> list[int]:
    return [mark for mark in _MARKS if mark <= found.suite.horizon]


def _soonest(worst: Worst | None) -> str:
    if worst is None:
        return "no attack has a result"
    steps = f"{worst.duration} step{'' if worst.duration.steps == 1 else 's'}"
    return f"soonest lost: {steps} under {worst.attack} at {worst.rate}"


def _worst(worst: Worst) -> dict[str, Any]:
    return {
        "attack": worst.attack,
        "rate": worst.rate,
        **(_duration(worst.duration) or {}),
        "seeds": worst.seeds,
    }


def _duration(duration: Duration | None) -> dict[str, Any] | None:
    if duration is None:
        return None
    return {"steps": duration.steps, "censored": duration.censored}


def _point(point: Point) -> dict[str, Any]:
    shares = {"share": point.share, "low": point.low, "high": point.high}
    return {"steps": point.steps, **{k: f"{v:.4f}" for k, v in shares.items()}}


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
