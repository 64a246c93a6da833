"""Survival curves as a picture."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

from attest.errors import ConfigurationError
from attest.training.resistance.survival import kaplan_meier
from attest.training.resistance.values import Resistance

__all__ = ["draw"]

_SUFFIXES = (".svg", ".png")


def draw(resistance: Resistance, path: Path) -> None:
    """Write the curves as SVG or PNG, by the file's suffix; one panel per principle.

    A line per attack and rate: the share of runs that still keep the principle, with
    the 95 % interval of the attack that lost it soonest. Controls are
    black, under that attack. The same values give the same SVG.

    Raises:
        ConfigurationError: another suffix, matplotlib is missing, or the file can't be
            written.
    """
    if path.suffix not in _SUFFIXES:
        raise ConfigurationError(
            f"{path}: expected a name that ends in {' or '.join(_SUFFIXES)}"
        )
    try:
        import matplotlib as mpl  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(
            "a picture needs matplotlib, which is not installed",
            hint="pip install 'attest-gateway[training]'",
        ) from error
    names = list(resistance.starts)
    # Ids in an SVG are salted at random unless they are told not to be.
    with mpl.rc_context({"svg.hashsalt": "attest", "svg.fonttype": "none"}):
        figure = Figure(figsize=(7, 0.6 + 3 * len(names)), layout="constrained")
        panels = figure.subplots(len(names), squeeze=False)
        for panel, name in zip(panels[:, 0], names, strict=True):
            _panel(panel, resistance, name)
        try:
            figure.savefig(path, metadata=_undated(path))
        except OSError as error:
            raise ConfigurationError(f"{path}: {error.strerror or error}") from error


def _panel(panel: Any, found: Resistance, principle: str) -> None:
    worst = found.worst(principle)
    soonest = (worst.attack, worst.rate) if worst else None
    for attack in found.suite.attacks:
        for rate, dashes in zip(attack.rates, cycle(("-", "--", ":")), strict=False):
            cell = (attack.kind, rate)
            style = {"linestyle": dashes, "label": f"{attack.kind} at {rate}"}
            _curve(panel, found, (principle, *cell), style, shaded=cell == soonest)
    if soonest:
        for name, control in found.controls.items():
            style = {"color": "black", "label": f"{name}, {' at '.join(soonest)}"}
            _curve(panel, control, (principle, *soonest), style)
    panel.set_title(f"{principle}, suite {found.suite.name}")
    panel.set_xlabel("steps of fine-tuning")
    panel.set_ylabel("share of runs that keep it")
    panel.set_xscale("symlog", base=2, linthresh=1)
    panel.xaxis.set_major_formatter("{x:.0f}")
    panel.set_xlim(0, found.suite.horizon)
    panel.set_ylim(-0.02, 1.02)
    panel.legend(fontsize="x-small", loc="lower left", bbox_to_anchor=(1, 0))


def _curve(
    panel: Any,
    found: Resistance,
    cell: tuple[str, str, str],
    style: Mapping[str, Any],
    *,
    shaded: bool = False,
) -> None:
    points = kaplan_meier([run.duration for run in found.of(*cell)])
    if not points:
        return
    points.append(replace(points[-1], steps=found.suite.horizon))
    steps = [point.steps for point in points]
    (line,) = panel.step(steps, [p.share for p in points], where="post", **style)
    if shaded:
        low, high = [p.low for p in points], [p.high for p in points]
        color = line.get_color()
        panel.fill_between(steps, low, high, step="post", alpha=0.15, color=color)


def _undated(path: Path) -> dict[str, Any]:
    return {"Date": None} if path.suffix == ".svg" else {}
