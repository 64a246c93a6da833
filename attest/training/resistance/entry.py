"""What a training statement says of resistance, and the file that it points to."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attest.digests import digest
from attest.errors import TrainingError
from attest.files import write_durably
from attest.training.constitution import Constitution, Principle
from attest.training.resistance.survival import Duration
from attest.training.resistance.values import Resistance

__all__ = ["resistance_entry", "with_resistance", "write_resistance"]

# As `attest.training.statement.LIMITS` has it.
_NOT_MEASURED = "No resistance to fine-tuning was measured."


def resistance_entry(principle: Principle, resistance: Resistance) -> dict[str, Any]:
    """The member `resistance` of a principle in the training statement.

    `met` is null without a requirement, and false when the suite is not the one that
    the requirement names: what was asked for was not measured then.

    Raises:
        TrainingError: the principle was not attacked, or every run diverged.
    """
    worst = resistance.worst(principle.id)
    if worst is None:
        raise TrainingError(
            f"principle {principle.id!r}: no attack on it has a result",
            hint="give rows that teach against it, and a suite with lower rates",
        )
    required, met = None, None
    if need := principle.requirement:
        required = {
            "suite": need.attack_suite,
            "minStepsBelowHalf": need.min_steps_below_half,
            "onMiss": need.on_miss,
        }
        met = (
            need.attack_suite == resistance.suite.name
            and worst.duration.steps >= need.min_steps_below_half
        )
    controls = {
        name: _steps(found.duration)
        for name, control in resistance.controls.items()
        if (found := control.worst(principle.id))
    }
    measured = {
        "worst": {
            "attack": worst.attack,
            "rate": worst.rate,
            **_steps(worst.duration),
            "seeds": worst.seeds,
        },
        "curves": resistance.digest,
        "controls": controls,
    }
    if skipped := resistance.not_run(principle.id):
        measured["notRun"] = list(skipped)
    for run in resistance.of(principle.id, "restore"):
        measured["parentRestore"] = {"kept": run.curve[-1][1], "count": run.count}
    return {
        "suite": resistance.suite.name,
        "suiteDigest": resistance.suite.digest,
        "required": required,
        "measured": measured,
        "met": met,
    }


def with_resistance(
    statement: Mapping[str, Any], constitution: Constitution, resistance: Resistance
) -> dict[str, Any]:
    """A training statement that carries what was measured of every attacked principle.

    The limit that says that nothing was measured gives way to one that says of what.
    """
    principles = []
    for entry in statement.get("principles", []):
        stated = dict(entry)
        if stated.get("id") in resistance.starts:
            principle = constitution.principle(stated["id"])
            stated["resistance"] = resistance_entry(principle, resistance)
        principles.append(stated)
    limit = (
        f"Resistance was measured under suite {resistance.suite.name} only; an attack "
        "that was not tried may take fewer steps."
    )
    kept = [x for x in statement.get("limits", ()) if x not in (_NOT_MEASURED, limit)]
    return {**statement, "principles": principles, "limits": [*kept, limit]}


def write_resistance(path: Path, resistance: Resistance) -> str:
    """Write `resistance.json` and return its digest, which the statement carries."""
    data = resistance.dumps()
    write_durably(path, data)
    return digest(data)


def _steps(duration: Duration) -> dict[str, Any]:
    return {"stepsBelowHalf": duration.steps, "censored": duration.censored}
