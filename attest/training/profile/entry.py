"""A profile as it stands in a statement: `principles[].profile`.

Read strictly: every number that follows from others is derived again and compared, so
that a profile cannot claim a depth that its own amounts do not have.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from attest.digests import parse_digest
from attest.errors import FormatError, UnsupportedVersionError
from attest.training.profile.decimals import amount, figure, read_amount, read_figure
from attest.training.profile.values import (
    CROSS_CHECK_METHOD,
    METHOD,
    MILLION,
    Bars,
    CrossCheck,
    Profile,
    ProfileInconsistentError,
    require_valid,
)
from attest.training.routing import layer_unit

__all__ = ["BARS_METHOD", "profile_entry", "read_entry", "read_profiles"]

BARS_METHOD = "jackknife/1"

_OUTSIDE = ("head", "stem", "tied")
_MAX_UNITS = 2048
_MAX_PRINCIPLES = 256
_MAX_NUMBER = 2**53 - 1


def profile_entry(profile: Profile) -> dict[str, Any]:
    """The profile as JSON without floats; `valid` is what the numbers say."""
    bars, check = profile.bars, profile.check
    return {
        "method": profile.method,
        "every": profile.every,
        "steps": profile.steps,
        "probe": profile.probe,
        "rows": profile.rows,
        "allocation": dict(
            zip(profile.units, map(amount, profile.allocated), strict=True)
        ),
        "drop": amount(profile.drop),
        "bySource": {k: amount(v) for k, v in profile.by_source.items()},
        "layers": list(map(amount, profile.layers)),
        **_derived(profile),
        "valid": profile.valid,
        "errorBars": None if bars is None else _bars(bars),
        "crossCheck": None if check is None else _check(profile, check),
    }


def _derived(profile: Profile) -> dict[str, str | None]:
    in_band = profile.in_band
    return {
        "outside": figure(profile.outside),
        "entropy": figure(profile.entropy),
        "entropyNormalised": figure(profile.entropy_normalised),
        "effectiveDepth": figure(profile.effective_depth),
        "centroid": figure(profile.centroid),
        "inBand": None if in_band is None else figure(in_band),
        "negativeShare": figure(profile.negative_share),
        "residual": figure(profile.residual),
    }


def _bars(bars: Bars) -> dict[str, Any]:
    in_band = bars.in_band
    return {
        "method": BARS_METHOD,
        "chunks": bars.chunks,
        "layers": list(map(figure, bars.layers)),
        "entropyNormalised": figure(bars.entropy_normalised),
        "centroid": figure(bars.centroid),
        "inBand": None if in_band is None else figure(in_band),
    }


def _check(profile: Profile, check: CrossCheck) -> dict[str, Any]:
    return {
        "method": CROSS_CHECK_METHOD,
        "layers": list(map(amount, check.layers)),
        "totalVariation": figure(profile.total_variation or 0.0),
        "flagged": profile.flagged,
    }


def read_profiles(principles: Any) -> tuple[Profile, ...]:
    """The profiles of a statement's `principles`, of those that have one of their own.

    A derived model may state `{"of": "parent"}`: the figures stand in that manifest.

    Raises:
        FormatError: not a list of principles, or as `read_entry`.
        ProfileIncompleteError, UnsupportedVersionError: as `read_entry`.
    """
    if not isinstance(principles, list) or len(principles) > _MAX_PRINCIPLES:
        raise FormatError(f"principles: expected a list of at most {_MAX_PRINCIPLES}")
    found = []
    for number, principle in enumerate(principles):
        path = f"principles[{number}]"
        match principle:
            case {"id": str(), "profile": None | {"of": "parent"}}:
                pass
            case {"id": str(name), "profile": dict(entry)}:
                routing = principle.get("routing", {})
                layers = routing.get("layers", []) if isinstance(routing, dict) else []
                band = tuple(_integers(layers, f"{path}.routing.layers"))
                found.append(read_entry(entry, principle=name, band=band))
            case {"id": str()} if "profile" not in principle:
                pass
            case _:
                raise FormatError(f"{path}: expected an id, and a profile or none")
    return tuple(found)


def read_entry(
    entry: Mapping[str, Any], *, principle: str, band: Sequence[int]
) -> Profile:
    """The profile of a principle that was routed to the blocks of `band`.

    The error bars can't be derived from the entry; only their form is checked.

    Raises:
        UnsupportedVersionError: another method.
        FormatError: another form: a member too many or missing, or no number.
        ProfileInconsistentError: a number does not follow from the others.
        ProfileIncompleteError: it says that it is valid and doesn't add up.
    """
    reader = _Reader(entry, f"profile of {principle!r}")
    reader.word("method", METHOD)
    reader.members(_MEMBERS, optional=_CARRIED)
    if entry.get("carried", True) is not True:
        reader.fail("carried", "expected true, or no such member")
    profile = _profile(reader, principle, tuple(band))
    if entry["valid"] is True:
        require_valid(profile)
    reader.follows("valid", profile.valid)
    reader.follows("layers", list(map(amount, profile.layers)))
    for name, text in _derived(profile).items():
        reader.close(name, text)
    if profile.check is not None:
        check = reader.child("crossCheck")
        check.close("totalVariation", figure(profile.total_variation or 0.0))
        check.follows("flagged", profile.flagged)
    if abs(sum(profile.by_source.values()) - sum(profile.allocated)) > _slack(profile):
        reader.differs("bySource", "the sum of allocation")
    return profile


_MEMBERS = frozenset(
    {
        *("method", "every", "steps", "probe", "rows", "allocation", "drop"),
        *("bySource", "layers", "outside", "entropy", "entropyNormalised"),
        *("effectiveDepth", "centroid", "inBand", "negativeShare", "residual"),
        *("valid", "errorBars", "crossCheck"),
    }
)
# Says that the profile was measured on the parent, whose tensors these are.
_CARRIED = frozenset({"carried"})
_BARS_MEMBERS = frozenset(
    {"method", "chunks", "layers", "entropyNormalised", "centroid", "inBand"}
)
_CHECK_MEMBERS = frozenset({"method", "layers", "totalVariation", "flagged"})


def _profile(reader: "_Reader", principle: str, band: tuple[int, ...]) -> Profile:
    allocation = reader.amounts("allocation")
    outside = [unit for unit in _OUTSIDE if unit in allocation]
    blocks = len(allocation) - len(outside)
    units = (*map(layer_unit, range(blocks)), *outside)
    if not blocks or set(units) != allocation.keys():
        reader.fail("allocation", "expected every block, and else head, stem or tied")
    if list(band) != sorted(set(band) & set(range(blocks))):
        reader.fail("allocation", f"expected the layers of the band, {list(band)}")
    return Profile(
        principle=principle,
        band=band,
        blocks=blocks,
        units=units,
        allocated=tuple(allocation[unit] for unit in units),
        drop=read_amount(reader.value["drop"], f"{reader.path}.drop"),
        by_source=reader.amounts("bySource"),
        probe=reader.digest("probe"),
        rows=reader.number("rows"),
        every=reader.number("every"),
        steps=reader.number("steps"),
        bars=_read_bars(reader, blocks),
        check=_read_check(reader, blocks),
    )


def _read_bars(reader: "_Reader", blocks: int) -> Bars | None:
    if reader.value["errorBars"] is None:
        return None
    bars = reader.child("errorBars")
    bars.word("method", BARS_METHOD)
    bars.members(_BARS_MEMBERS)
    in_band = bars.value["inBand"]
    return Bars(
        chunks=bars.number("chunks"),
        layers=tuple(
            read_figure(v, f"{bars.path}.layers") / 1e4 for v in bars.rows(blocks)
        ),
        entropy_normalised=bars.figure("entropyNormalised"),
        centroid=bars.figure("centroid"),
        in_band=None if in_band is None else bars.figure("inBand"),
    )


def _read_check(reader: "_Reader", blocks: int) -> CrossCheck | None:
    if reader.value["crossCheck"] is None:
        return None
    check = reader.child("crossCheck")
    check.word("method", CROSS_CHECK_METHOD)
    check.members(_CHECK_MEMBERS)
    path = f"{check.path}.layers"
    layers = tuple(read_amount(v, path) for v in check.rows(blocks))
    if min(layers) < 0 or sum(layers) not in (0, MILLION):
        check.fail("layers", "expected shares that sum to one")
    return CrossCheck(layers)


def _slack(profile: Profile) -> int:
    # Each number was rounded to a millionth by itself.
    return len(profile.units) + len(profile.by_source)


def _integers(value: Any, path: str) -> list[int]:
    if not isinstance(value, list) or len(value) > _MAX_UNITS:
        raise FormatError(f"{path}: expected block numbers")
    if any(type(item) is not int for item in value):
        raise FormatError(f"{path}: expected block numbers")
    return value


class _Reader:
    """Typed access to an object; every refusal names the member."""

    def __init__(self, value: Mapping[str, Any], path: str) -> None:
        self.value, self.path = value, path

    def fail(self, name: str, problem: str) -> NoReturn:
        raise FormatError(f"{self.path}.{name}: {problem}")

    def differs(self, name: str, expected: str) -> NoReturn:
        raise ProfileInconsistentError(
            f"{self.path}.{name}: expected {expected}, which follows from the amounts",
            hint="the profile was edited, or made by something that derives otherwise",
        )

    def members(
        self, names: frozenset[str], *, optional: frozenset[str] = frozenset()
    ) -> None:
        found = self.value.keys() - optional
        if found != names:
            name = min(found ^ names)
            problem = "missing" if name in names else "not a member that is known"
            self.fail(name[:40], problem)

    def word(self, name: str, expected: str) -> None:
        if self.value.get(name) != expected:
            raise UnsupportedVersionError(
                f"{self.path}.{name}: expected {expected}",
                hint="upgrade: pip install --upgrade attest-gateway",
            )

    def follows(self, name: str, expected: Any) -> None:
        found = self.value[name]
        if type(found) is not type(expected) or found != expected:
            self.differs(
                name, "another value" if isinstance(found, list) else str(expected)
            )

    def close(self, name: str, expected: str | None) -> None:
        """Equal to within one in the last digit: logarithms differ by machine."""
        found = self.value[name]
        if expected is None or found is None:
            if found != expected:
                self.differs(name, str(expected))
            return
        path = f"{self.path}.{name}"
        if abs(read_figure(found, path) - read_figure(expected, path)) > 1:
            self.differs(name, expected)

    def child(self, name: str) -> "_Reader":
        value = self.value[name]
        if not isinstance(value, dict):
            self.fail(name, "expected an object")
        return _Reader(value, f"{self.path}.{name}")

    def number(self, name: str) -> int:
        value = self.value[name]
        if type(value) is not int or not 0 < value <= _MAX_NUMBER:
            self.fail(name, "expected a positive integer")
        return value

    def digest(self, name: str) -> str:
        parse_digest(self.value[name])
        return str(self.value[name])

    def figure(self, name: str) -> float:
        return read_figure(self.value[name], f"{self.path}.{name}") / 1e4

    def amounts(self, name: str) -> dict[str, int]:
        value = self.child(name).value
        if len(value) > _MAX_UNITS:
            self.fail(name, f"expected at most {_MAX_UNITS} amounts")
        return {k: read_amount(v, f"{self.path}.{name}") for k, v in value.items()}

    def rows(self, count: int) -> list[Any]:
        value = self.value["layers"]
        if not isinstance(value, list) or len(value) != count:
            self.fail("layers", f"expected {count} numbers")
        return value
