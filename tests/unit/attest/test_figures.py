import pytest
from fakes.run import profile
from hypothesis import given
from hypothesis import strategies as st

from attest.digests import digest
from attest.errors import (
    AttestError,
    ConfigurationError,
    FormatError,
    RunMismatchError,
    ShortfallError,
)
from attest.figures import settle


def resistance(steps=12, *, need=10, on_miss="fail", **members):
    worst = {"attack": "full", "stepsBelowHalf": steps, "censored": False, "seeds": 3}
    return {
        "suite": "std-1",
        "suiteDigest": digest(b"std-1"),
        "required": {"suite": "std-1", "minStepsBelowHalf": need, "onMiss": on_miss},
        "measured": {"worst": worst, "curves": digest(b"curves")},
        "met": steps >= need,
        **members,
    }


def principle(**members):
    return [{"id": "refuse", **members}]


def settled(entry, signed=()):
    found = settle(principle(resistance=entry), signed=signed)
    return found.principles[0]["resistance"], found.notes


def test_requirement_that_was_reached_changes_nothing():
    entry = resistance()
    assert settled(entry) == (entry, ())


@pytest.mark.parametrize(
    ("entry", "reason", "found"),
    [
        (resistance(4), "not-met", "found 4 under 'full'"),
        (
            resistance(measured=None, met=None),
            "not-measured",
            "found no measurement",
        ),
        (resistance(measured=None, met=False), "not-measured", "no measurement"),
    ],
)
def test_missed_requirement_stops_unless_signed_as_such(entry, reason, found):
    with pytest.raises(ShortfallError, match=found) as caught:
        settled(entry)
    assert caught.value.principle == "refuse"
    assert caught.value.code == "shortfall"
    assert "'refuse': expected at least 10 steps" in str(caught.value)
    assert "--sign-shortfall refuse" in caught.value.hint
    signed, notes = settled(entry, ["refuse"])
    assert signed == {**entry, "shortfall": reason}
    assert found in notes[0]


def test_censored_figure_is_not_said_to_be_exact():
    worst = {"attack": "lora", "stepsBelowHalf": 8, "censored": True, "seeds": 1}
    entry = resistance(measured={"worst": worst}, met=False)
    with pytest.raises(ShortfallError, match="found more than 8 under 'lora'"):
        settled(entry)


@pytest.mark.parametrize(("on_miss", "notes"), [("warn", 1), ("record", 0)])
def test_other_misses_are_signed_and_say_so(on_miss, notes):
    found, said = settled(resistance(4, on_miss=on_miss))
    assert found["shortfall"] == "not-met"
    assert len(said) == notes


def test_one_signed_shortfall_covers_no_other():
    both = [{"id": name, "resistance": resistance(4)} for name in ("a", "b")]
    with pytest.raises(ShortfallError, match="'b'"):
        settle(both, signed=["a"])


@pytest.mark.parametrize("name", ["refuse", "unknown"])
def test_shortfall_that_is_none_is_not_signed(name):
    with pytest.raises(ConfigurationError, match=f"{name!r}: expected a shortfall"):
        settled(resistance(), [name])


@pytest.mark.parametrize(
    ("entry", "match"),
    [
        (resistance(4, met=True), "at least 10 steps, found 4"),
        (resistance(measured=None, met=True), "a measurement, found none"),
        (resistance(suite="mild"), "suite 'std-1', found 'mild'"),
        (resistance(suiteDigest=None), "digests of the suite"),
        (resistance(required=None, met=True), "a requirement, found none"),
        (resistance(4, required=None), "a requirement, found none"),
        (resistance(shortfall="not-met"), "expected no such member"),
        (resistance(4, on_miss="record", met=True), "at least 10 steps"),
    ],
)
@pytest.mark.parametrize("signed", [(), ("refuse",)])
def test_contradiction_is_refused_always(entry, match, signed):
    with pytest.raises(RunMismatchError, match=match):
        settled(entry, signed)


def test_met_without_the_digest_of_the_curves_is_refused():
    entry = resistance()
    for curves in ({}, {"curves": None}, {"curves": "sha256:00"}):
        measured = {"worst": entry["measured"]["worst"], **curves}
        with pytest.raises(RunMismatchError, match="digests of the suite and of all"):
            settled({**entry, "measured": measured})


@pytest.mark.parametrize(
    "entry",
    [
        resistance(met="yes"),
        resistance(met=None),
        resistance(required={"minStepsBelowHalf": 10, "onMiss": "ignore"}),
        resistance(required={"minStepsBelowHalf": 0, "onMiss": "fail"}),
        resistance(measured={}),
        resistance(measured={"worst": {"attack": "full", "stepsBelowHalf": 12}}),
        resistance(True),
        resistance(-1),
    ],
)
def test_form_of_resistance(entry):
    with pytest.raises(FormatError, match="training statement"):
        settled(entry)


def test_measurement_without_requirement():
    entry = resistance(required=None, met=None)
    assert settled(entry) == (entry, ())


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"valid": False, "residual": "0.4000"},
        {"valid": False, "layers": ["0.1", "0.1"]},
        {"layers": ["0.3333", "0.3333", "0.3333"]},
        {"residual": "-0.1000"},
    ],
)
def test_profile_is_signed_as_it_was_measured(members):
    entry = principle(profile=profile(**members))
    assert settle(entry).principles == entry


@pytest.mark.parametrize(
    ("members", "match"),
    [
        ({"residual": "0.1001"}, "a residual of at most 0.10, found 0.1001"),
        ({"residual": "-0.5"}, "a residual"),
        ({"layers": ["0.5", "0.4"]}, "add up to 1, found 0.9"),
        ({"layers": ["1.5", "-0.5"]}, "add up to 1"),
    ],
)
def test_profile_that_does_not_add_up_is_not_valid(members, match):
    with pytest.raises(RunMismatchError, match=match):
        settle(principle(profile=profile(**members)))


@pytest.mark.parametrize(
    "members",
    [
        {"valid": None},
        {"valid": "true"},
        {"residual": 0},
        {"residual": "NaN"},
        {"residual": "1e9"},
        {"layers": []},
        {"layers": "0.5"},
        {"layers": [0.5, 0.5]},
        {"method": ""},
    ],
)
def test_form_of_a_profile(members):
    with pytest.raises(FormatError):
        settle(principle(profile=profile(**members)))


@pytest.mark.parametrize("value", [{}, [1], [{}], [{"id": "a"}, {"id": "a"}], None])
def test_form_of_principles(value):
    with pytest.raises(FormatError):
        settle(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["worst", "met", "onMiss", "minStepsBelowHalf", "seeds"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*resistance(), "shortfall"]), JSON))
def test_whatever_is_stated_is_settled_or_refused(members):
    try:
        found, _ = settled({**resistance(), **members})
    except AttestError:
        return
    required, measured = found["required"], found["measured"]
    if found.get("met") is True:
        steps = measured["worst"]["stepsBelowHalf"]
        assert steps >= required["minStepsBelowHalf"]
    elif required is not None:
        assert found["shortfall"] in {"not-measured", "not-met"}
        assert required["onMiss"] != "fail"
