"""The training statement: what a manifest says about a run, before it is signed.

Free of floats and of torch: shares are decimal strings, and everything that a signature
will cover is a digest, a name or a number that the run measured.
"""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from attest.digests import digest
from attest.training.constitution import Constitution, Principle
from attest.training.ledger import LedgerSummary
from attest.training.routing import Schedule, anchor_counts

if TYPE_CHECKING:  # it imports torch
    from attest.training.evaluation import Score

__all__ = [
    "LIMITS",
    "dataset",
    "decimal",
    "environment",
    "evaluation_entry",
    "principle_entry",
    "stage_entry",
]

LIMITS = (
    "The ledger is the trainer's own claim: it proves what was written, not what ran.",
    "A band says what training was allowed to change, not where a principle ended up.",
    "Confinement binds the trainer; whoever has the weights can tune any layer.",
    "No resistance to fine-tuning was measured.",
)


def decimal(value: float, digits: int = 4) -> str:
    """A number in the one form in which statements carry it."""
    return f"{value:.{digits}f}"


def dataset(name: str, content: bytes) -> dict[str, Any]:
    """A JSONL file as the statement lists it."""
    return {"name": name, "digest": digest(content), "count": content.count(b"\n")}


def environment(*, seed: int, threads: int) -> dict[str, Any]:
    """What a run has to be repeated with to give the same weights."""
    return {
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "machine": platform.machine(),
        "device": "cpu",
        "threads": threads,
        "seed": seed,
    }


def stage_entry(  # noqa: PLR0913  # one parameter per member
    name: str,
    head: LedgerSummary,
    *,
    data: Sequence[Mapping[str, Any]],
    setting: Mapping[str, Any],
    method: str = "sft",
    base: str | None = None,
    result: str | None = None,
) -> dict[str, Any]:
    """One stage; its event log is the ledger's first `treeSize` records.

    Args:
        name: as its records in the ledger have it.
        head: the ledger's state after its last record.
        data: of `dataset`.
        setting: of `environment`.
        method: sft, dpo, grpo, rloo, ...
        base: tensor root of the weights before it (`weights.weights_root`); with
            `result`, of those after it, whoever signs sees that each stage began where
            the one before ended, and that the last one ended with the model signed.
        result: see `base`.
    """
    entry = {
        "name": name,
        "method": method,
        "eventLog": {"treeSize": head.size, "root": head.root},
        "data": list(data),
        "environment": dict(setting),
    }
    ends = {"base": base, "result": result}
    return entry | {key: root for key, root in ends.items() if root is not None}


def principle_entry(
    principle: Principle, *, constitution: Constitution, schedule: Schedule
) -> dict[str, Any]:
    """What a principle is and how it was routed, without what was measured."""
    routing: dict[str, Any] = {"band": "none", "layers": [], "rule": "anchored-only"}
    if principle.band is not None:
        route = schedule.route(principle.id)
        routing = {
            "band": str(principle.band),
            "layers": list(route.layers),
            "rule": "toggle",
            "optimizerState": "per-route",
            "anchors": anchor_counts(principle, constitution),
            "tensors": {"count": len(route.tensors), "digest": route.digest},
            "confinement": {"checked": "every-step", "changed": 0},
        }
    return {
        "id": principle.id,
        "title": principle.title,
        "class": principle.kind,
        "digest": principle.digest,
        "routing": routing,
    }


def evaluation_entry(
    principle: Principle,
    *,
    data: Mapping[str, Any],
    before: "Score",
    after: "Score",
) -> dict[str, Any]:
    """The held-out shares before and after the governed stage."""
    if principle.evaluation is None:
        raise ValueError(principle.id)
    low, high = after.interval()
    return {
        "data": data["digest"],
        "predicate": principle.evaluation.predicate,
        "value": principle.evaluation.value,
        "count": after.count,
        "before": decimal(before.share),
        "after": decimal(after.share),
        "interval95": [decimal(low), decimal(high)],
    }
