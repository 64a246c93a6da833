"""What a statement may say of its principles: its figures against its own words.

A training run states for each principle where it was absorbed (`profile`) and how long
it withstood later fine-tuning (`resistance`). The signer takes these figures over; here
he refuses those that contradict themselves, and those that fall short of what the
constitution requires. Pure: whether the figures are those of the files that they name
is for `attest.training.binding`.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from attest._reader import Reader
from attest.errors import (
    ConfigurationError,
    FormatError,
    RunMismatchError,
    ShortfallError,
)

__all__ = ["MAX_RESIDUAL", "ON_MISS", "Settled", "settle"]

ON_MISS = ("fail", "warn", "record")

# Beyond this the layers' shares do not add up to the loss change that was measured
# (training.md 3d), and a profile has to call itself invalid.
MAX_RESIDUAL = Decimal("0.10")
# Shares are rounded to four digits or more; a thousand layers then miss 1 by 0.05.
_ROUNDING = Decimal("0.05")
_DECIMAL = re.compile(r"-?\d{1,12}(\.\d{1,12})?\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Settled:
    """Principles as they may be signed.

    Attributes:
        principles: as stated; where a requirement is missed, `resistance.shortfall`
            says `not-measured` or `not-met`.
        notes: one line for people per shortfall that its constitution wants said.
    """

    principles: list[dict[str, Any]]
    notes: tuple[str, ...]


def settle(principles: object, *, signed: Collection[str] = ()) -> Settled:
    """The principles of a training statement, ready to be signed.

    A requirement counts as missed when nothing was measured or `met` is false. What
    then happens is for its `onMiss`: `fail` raises unless the principle's id is in
    `signed`, `warn` leaves a note, `record` nothing but the member `shortfall`.

    Raises:
        FormatError: a member is missing or of another kind.
        RunMismatchError: `met` without figures that reach the requirement, without the
            digest of the curves or under another suite; a `valid` profile whose shares
            do not add up; a `shortfall`, which is not the run's to say.
        ShortfallError: a missed requirement of the kind `fail`.
        ConfigurationError: `signed` names a principle that does not fall short.
    """
    document = Reader({"principles": principles}, document="training statement")
    notes: list[str] = []
    missed: set[str] = set()
    result = []
    seen: set[str] = set()
    for principle in document.children("principles"):
        entry = dict(principle.value)
        name = principle.text("id")
        if name in seen:
            raise principle.refuse("id", f"{name!r} stands twice")
        seen.add(name)
        if (profile := principle.optional_child("profile")) is not None:
            _check_profile(profile)
        if (resistance := principle.optional_child("resistance")) is not None and (
            shortfall := _shortfall(resistance, name, signed=signed)
        ):
            missed.add(name)
            entry["resistance"] = {**resistance.value, "shortfall": shortfall.word}
            notes += [shortfall.note] if shortfall.note else []
        result.append(entry)
    if unknown := sorted(set(signed) - missed):
        raise ConfigurationError(
            f"principle {unknown[0]!r}: expected a shortfall to sign, found none",
            hint="leave out --sign-shortfall for it",
        )
    return Settled(result, tuple(notes))


def _decimal(reader: Reader, key: str, value: object) -> Decimal:
    if not isinstance(value, str) or not _DECIMAL.match(value):
        raise reader.refuse(key, "must be a number in a string, such as '0.25'")
    return Decimal(value)


# --- profiles ---------------------------------------------------------------------


def _check_profile(profile: Reader) -> None:
    if profile.value.get("of") == "parent":
        # No figures: nobody is to take the parent's for this model's.
        profile.digest("manifest")
        if more := profile.value.keys() - {"of", "manifest"}:
            raise profile.refuse(min(more), "must stand in the parent's manifest")
        return
    profile.text("method")
    shares = profile.value.get("layers")
    if not isinstance(shares, list) or not shares:
        raise profile.refuse("layers", "must hold shares")
    numbers = [_decimal(profile, "layers", share) for share in shares]
    residual = _decimal(profile, "residual", profile.value.get("residual"))
    if not profile.boolean("valid"):
        return
    total = sum(numbers, Decimal(0))
    if min(numbers) < 0 or abs(total - 1) > _ROUNDING:
        raise _contradiction(
            profile, "valid", f"shares that add up to 1, found {total}"
        )
    if abs(residual) > MAX_RESIDUAL:
        raise _contradiction(
            profile, "valid", f"a residual of at most {MAX_RESIDUAL}, found {residual}"
        )


def _contradiction(reader: Reader, key: str, problem: str) -> RunMismatchError:
    return RunMismatchError(
        f"{reader.document}: {reader.path}.{key} is true: expected {problem}",
        hint="nothing is signed that contradicts itself; make the statement anew from "
        "what was measured",
    )


# --- resistance -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Shortfall:
    word: str
    note: str


def _shortfall(
    resistance: Reader, name: str, *, signed: Collection[str]
) -> _Shortfall | None:
    if "shortfall" in resistance.value:
        raise RunMismatchError(
            f"training statement: {resistance.path}.shortfall: expected no such member",
            hint="a shortfall is signed with --sign-shortfall, by the authority",
        )
    steps = _measured(resistance)
    required = resistance.optional_child("required")
    met = resistance.boolean("met") if resistance.value.get("met") is not None else None
    if required is None:
        if met is not None:
            raise _contradiction(resistance, "met", "a requirement, found none")
        return None
    if met is None and steps is not None:
        raise resistance.refuse("met", "must be true or false, since it was measured")
    need, on_miss = _required(required)
    if met:
        _check_met(resistance, required, need=need, steps=steps)
        return None
    word = "not-measured" if steps is None else "not-met"
    found = "no measurement" if steps is None else _worst(resistance)
    words = (
        f"principle {name!r}: expected at least {need} steps of attack, found {found}"
    )
    if on_miss == "fail" and name not in signed:
        raise ShortfallError(
            words,
            hint="measure its resistance under the required suite, train it to "
            f"withstand more, or sign the shortfall as such: --sign-shortfall {name}",
            principle=name,
        )
    return _Shortfall(word, "" if on_miss == "record" else f"shortfall: {words}")


def _measured(resistance: Reader) -> int | None:
    """Steps of the worst attack; None where nothing was measured."""
    measured = resistance.optional_child("measured")
    if measured is None:
        return None
    worst = measured.child("worst")
    worst.text("attack")
    worst.boolean("censored")
    worst.integer("seeds", least=1)
    resistance.text("suite")
    return worst.integer("stepsBelowHalf", least=0)


def _required(required: Reader) -> tuple[int, str]:
    on_miss = required.text("onMiss")
    if on_miss not in ON_MISS:
        raise required.refuse("onMiss", f"must be one of {', '.join(ON_MISS)}")
    return required.integer("minStepsBelowHalf", least=1), on_miss


def _check_met(
    resistance: Reader, required: Reader, *, need: int, steps: int | None
) -> None:
    if steps is None:
        raise _contradiction(resistance, "met", "a measurement, found none")
    if steps < need:
        found = _worst(resistance)
        raise _contradiction(resistance, "met", f"at least {need} steps, found {found}")
    suite, wanted = resistance.value.get("suite"), required.value.get("suite")
    if wanted is not None and suite != wanted:
        raise _contradiction(resistance, "met", f"suite {wanted!r}, found {suite!r}")
    try:
        resistance.child("measured").digest("curves")
        resistance.digest("suiteDigest")
    except FormatError as error:
        raise _contradiction(
            resistance, "met", "digests of the suite and of all curves, found none"
        ) from error


def _worst(resistance: Reader) -> str:
    worst = resistance.child("measured").child("worst")
    more = "more than " if worst.value["censored"] else ""
    return f"{more}{worst.value['stepsBelowHalf']} under {worst.value['attack']!r}"
