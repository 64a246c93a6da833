"""What a run measured, read back from its files and held against its statement.

`profile.json` and `resistance.json` hold everything from which the statement's figures
follow. They are derived again here, so that a statement can neither better a figure nor
leave out a principle that was measured.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from attest._reader import Reader
from attest.errors import FormatError, RunMismatchError, TrainingError
from attest.training._mismatch import HINT, expect_equal, mismatch
from attest.training.constitution import Constitution
from attest.training.profile.document import parse_profile
from attest.training.profile.entry import profile_entry, read_profiles
from attest.training.resistance.entry import resistance_entry
from attest.training.resistance.reader import parse_resistance
from attest.training.resistance.suite import SUITES

__all__ = ["check_profiles", "check_resistance", "curves_digest"]

# What follows from whole numbers and is the same on every machine. The rest, such as
# entropies, may differ in its last digit; `read_profiles` derives it with that slack.
_EXACT = (
    *("method", "every", "steps", "probe", "rows", "allocation", "drop", "bySource"),
    *("layers", "valid"),
)


def check_profiles(data: bytes, principles: Sequence[Reader]) -> None:
    """Return when the profiles stated are those of `profile.json`, all of them.

    Raises:
        RunMismatchError: a profile differs, was left out, or was never measured.
        ProfileIncompleteError, ProfileInconsistentError: as `read_profiles`.
        UnsupportedVersionError: another version of the file.
    """
    measured = _parsed(parse_profile, data)
    read_profiles([principle.value for principle in principles])
    stated = {
        principle.text("id"): profile.value
        for principle in principles
        if (profile := principle.optional_child("profile")) is not None
    }
    expect_equal(
        "profile.json, principles", sorted(measured.allocations), sorted(stated)
    )
    for name, entry in stated.items():
        found = profile_entry(measured.profile(name))
        for key in _EXACT:
            place = f"profile.json, {name}, {key}"
            expect_equal(place, entry.get(key), found[key])
        expect_equal(
            f"profile.json, {name}, crossCheck",
            _layers(entry.get("crossCheck")),
            _layers(found["crossCheck"]),
        )


def check_resistance(
    data: bytes, principles: Sequence[Reader], constitution: Constitution
) -> str:
    """The tensor root of the model that was attacked, when all figures are the file's.

    Raises:
        RunMismatchError: a figure differs, a principle was left out or was never
            attacked, or a suite does not hold what this version knows by its name.
        UnsupportedVersionError: another version of the file.
    """
    found = _parsed(parse_resistance, data)
    expect_equal(
        "resistance.json, constitution", constitution.digest, found.constitution
    )
    known = SUITES.get(found.suite.name)
    if known is not None:
        place = f"resistance.json, suite {known.name}"
        expect_equal(place, known.digest, found.suite.digest)
    stated = {
        principle.text("id"): resistance.value
        for principle in principles
        if (resistance := principle.optional_child("resistance")) is not None
        and resistance.value.get("measured") is not None
    }
    measured = {name for name in found.starts if found.worst(name) is not None}
    expect_equal("resistance.json, principles", sorted(measured), sorted(stated))
    for name, entry in stated.items():
        try:
            derived = resistance_entry(constitution.principle(name), found)
        except TrainingError as error:
            raise RunMismatchError(f"run: resistance.json: {error}") from error
        for key in sorted(derived.keys() | entry.keys()):
            place = f"resistance.json, {name}, {key}"
            expect_equal(place, entry.get(key), derived.get(key))
    return found.weights


def _layers(check: object) -> Any:
    return check.get("layers") if isinstance(check, Mapping) else None


def _parsed(parse: Any, data: bytes) -> Any:
    try:
        return parse(data)
    except FormatError as error:
        raise RunMismatchError(f"run: {error}", hint=HINT) from error


def curves_digest(principles: Sequence[Reader]) -> str | None:
    """The digest of `resistance.json`, as the principles state it.

    Raises:
        RunMismatchError: they state several.
    """
    stated = {
        measured.digest("curves")
        for principle in principles
        if (resistance := principle.optional_child("resistance"))
        and (measured := resistance.optional_child("measured"))
        and "curves" in measured.value
    }
    if len(stated) > 1:
        raise mismatch("resistance.json", "one digest", f"{len(stated)} of them")
    return next(iter(stated), None)
