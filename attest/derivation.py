"""What the manifest of a derived model may say, given the manifest of its parent.

A quantised, merged, re-sharded, converted or fine-tuned model has a manifest of its
own, which names the parent's. Of what was measured on the parent it takes over only
what must hold for the same reason: equal tensors. All the rest is said to be the
parent's, or not to have been measured. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from attest._reader import Reader
from attest.errors import FormatError, ManifestMismatchError
from attest.manifest import Manifest, is_weight_file

__all__ = ["NOT_MEASURED", "Derivation", "Rel", "derived_statement"]

NOT_MEASURED = "not-measured"

_LIMIT = (
    "Measured on the parent model, not on this one: see derivation.parent for its "
    "profile, evaluation and resistance."
)


class Rel(StrEnum):
    """How a model came from its parent."""

    QUANTISED_FROM = "quantised-from"
    MERGED_FROM = "merged-from"
    RESHARDED_FROM = "resharded-from"
    ADAPTER_OF = "adapter-of"
    CONVERTED_FROM = "converted-from"
    FINETUNED_FROM = "finetuned-from"


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivation:
    """What was done to a parent.

    Attributes:
        rel: how the model came from it.
        tool: what did it, with its version, in the signer's words.
        params: its settings, as texts.
        reproduced: a merge of the parent, an adapter, into its base was made again and
            gave these tensors to the bit.
    """

    rel: Rel
    tool: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    reproduced: bool = False

    def to_json(self, parent: Manifest) -> dict[str, Any]:
        """The member `derivation` of the child's manifest."""
        words = f"{self.rel}, by {self.tool}" if self.tool else str(self.rel)
        return {
            "parent": parent.digest,
            "parentWeights": parent.tensor_root,
            "rel": str(self.rel),
            "transformation": words,
            **({"tool": self.tool} if self.tool else {}),
            **({"params": dict(self.params)} if self.params else {}),
            **({"reproduced": True} if self.reproduced else {}),
        }


def derived_statement(
    parent: Manifest,
    derivation: Derivation,
    *,
    model: tuple[str, str],
    subjects: Mapping[str, str],
    root: str,
) -> dict[str, Any]:
    """The training statement of a model that was derived without a run of its own.

    Args:
        parent: verified by the caller.
        derivation: what was done to it.
        model: the child's name and version.
        subjects: every file of the child, by name, with its text digest.
        root: of the child's tensor tree.

    Raises:
        ManifestMismatchError: a re-sharded model has other tensors than its parent.
        FormatError: the parent's principles have no form that this version knows.
    """
    same_tensors = root == parent.tensor_root
    if derivation.rel is Rel.RESHARDED_FROM and not same_tensors:
        raise ManifestMismatchError(
            f"weights: expected the parent's tensor root {parent.tensor_root}, found "
            f"{root}",
            hint="re-sharding changes no tensor; was it --rel converted-from?",
        )
    resharded = derivation.rel is Rel.RESHARDED_FROM
    heir = _Heir(
        parent,
        profile=resharded or derivation.reproduced,
        # What a model answers depends on its template, tokenizer and configuration too.
        behaviour=resharded and _others(subjects) == _others(parent.subjects),
    )
    name, version = model
    statement: dict[str, Any] = {
        "model": {"name": name, "version": version},
        "principles": heir.principles(),
        "derivation": derivation.to_json(parent),
        "limits": heir.limits(),
    }
    if parent.constitution is not None:
        statement["constitution"] = dict(parent.constitution)
    if evaluation := heir.evaluation():
        statement["evaluation"] = evaluation
    return statement


def _others(files: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in files.items() if not is_weight_file(name)}


class _Heir:
    """What goes over from a parent, part by part."""

    def __init__(self, parent: Manifest, *, profile: bool, behaviour: bool) -> None:
        self._parent = Reader(parent.predicate, "$.predicate")
        self._digest = parent.digest
        self._profile, self._behaviour = profile, behaviour

    def principles(self) -> list[dict[str, Any]]:
        return [self._principle(item) for item in self._parent.children("principles")]

    def _principle(self, item: Reader) -> dict[str, Any]:
        entry = dict(item.value)
        profile = item.optional_child("profile")
        if profile is not None:
            entry["profile"] = self._of_profile(profile)
        evaluation = item.optional_child("evaluation")
        if evaluation is not None:
            entry["evaluation"] = self._of_behaviour(evaluation.value)
        resistance = item.optional_child("resistance")
        if resistance is not None:
            entry["resistance"] = self._of_resistance(resistance)
        return entry

    def _of_profile(self, profile: Reader) -> dict[str, Any]:
        # No figures: whoever looks for one finds none, and the parent's is not taken
        # for this model's.
        if profile.value.get("of") == "parent":
            return dict(profile.value)
        if self._profile:
            return {**profile.value, "carried": True}
        return {"of": "parent", "manifest": self._digest}

    def _of_behaviour(self, value: Mapping[str, Any]) -> dict[str, Any]:
        if self._behaviour or value.get("status") == NOT_MEASURED:
            return {**value, **({"carried": True} if self._behaviour else {})}
        return {"status": NOT_MEASURED}

    def _of_resistance(self, resistance: Reader) -> dict[str, Any]:
        entry = dict(resistance.value)
        # Whether a shortfall is signed is decided for every manifest anew.
        entry.pop("shortfall", None)
        if self._behaviour:
            return {**entry, "carried": True}
        for key in ("carried", "suiteDigest"):
            entry.pop(key, None)
        return {**entry, "measured": None, "met": None}

    def evaluation(self) -> list[dict[str, Any]]:
        result = []
        for item in self._parent.children("evaluation"):
            known = {
                key: item.value[key]
                for key in ("id", "name", "principle")
                if key in item.value
            }
            result.append({**known, **self._of_behaviour(item.value)})
        return result

    def limits(self) -> list[str]:
        try:
            limits = [*self._parent.texts("limits")]
        except FormatError:
            limits = []  # words for people, and no reason to refuse
        if not self._behaviour and _LIMIT not in limits:
            limits.append(_LIMIT)
        return limits
