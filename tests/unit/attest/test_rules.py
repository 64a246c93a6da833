from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.rules import ConstitutionRule, PrincipleRule, read_decimal

VERSIONS = st.tuples(*[st.integers(0, 12)] * 3)
TEXTS = VERSIONS.map(lambda v: ".".join(map(str, v)))


def allowed(versions, version, id_="civic"):
    rule = ConstitutionRule.from_json({"id": "civic", "versions": versions})
    return rule.allows({"id": id_, "version": version})


@pytest.mark.parametrize(
    ("versions", "version", "expected"),
    [
        (">=1.2,<2", "1.2.0", True),
        (">=1.2,<2", "1.10.3", True),
        (">=1.2,<2", "2.0.0", False),
        (">=1.2,<2", "1.1.9", False),
        (">1", "1.0.0", False),
        (">1", "1.0.1", True),
        ("<=1", "1.0.0", True),
        ("=1", "1.0.0", True),
        ("=1.0.1", "1", False),
        # Not compared as text, and nothing else than numbers is a version.
        (">=1", "10.0.0", True),
        (">=1", "1.0.0-rc.1", False),
        (">=1", "latest", False),
        (">=0", "", False),
        (">=0", "1.2.3.4", False),
        (">=0", "\u0661.0.0", False),
    ],
)
def test_versions(versions, version, expected):
    assert allowed(versions, version) is expected


@given(VERSIONS, VERSIONS)
def test_order_is_that_of_numbers(left, right):
    texts = [".".join(map(str, v)) for v in (left, right)]
    assert allowed(f">={texts[1]}", texts[0]) is (left >= right)
    assert allowed(f"<{texts[1]}", texts[0]) is (left < right)
    assert allowed(f"={texts[1]}", texts[0]) is (left == right)


def test_any_version_of_one_constitution():
    rule = ConstitutionRule.from_json({"id": "civic"})
    assert rule.allows({"id": "civic", "version": "whatever"})
    assert not rule.allows({"id": "civil", "version": "1.0.0"})
    assert not allowed(">=1", "1.0.0", id_="civil")


@pytest.mark.parametrize(
    "value",
    [
        None,
        "civic",
        {},
        {"id": ""},
        {"id": 1},
        {"id": "x" * 257},
        {"id": "civic", "version": "1"},
        {"id": "civic", "versions": ""},
        {"id": "civic", "versions": "1.2"},
        {"id": "civic", "versions": ">=1.2,"},
        {"id": "civic", "versions": "~1.2"},
        {"id": "civic", "versions": ">= 1.2"},
        {"id": "civic", "versions": ">=1.2.3.4"},
        {"id": "civic", "versions": ">=9999999999"},
        {"id": "civic", "versions": 1},
    ],
)
def test_a_constitution_of_another_form_is_refused(value):
    with pytest.raises(ValueError, match=r"must be|expected"):
        ConstitutionRule.from_json(value)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"id": 7},
        {"id": "honesty", "min_in_band": 0.6},
        {"id": "honesty", "min_in_band": "lots"},
        {"id": "honesty", "min_in_band": "1e3"},
        {"id": "honesty", "min_in_band": "\u0660.5"},
        {"id": "honesty", "min_steps_below_half": -1},
        {"id": "honesty", "min_steps_below_half": "9"},
        {"id": "honesty", "min_steps_below_half": True},
        {"id": "honesty", "min_inband": "0.6"},
    ],
)
def test_a_principle_of_another_form_is_refused(value):
    with pytest.raises(ValueError, match=r"must be|expected"):
        PrincipleRule.from_json(value)


@given(
    st.builds(
        PrincipleRule,
        st.text(min_size=1, max_size=5),
        st.none() | st.decimals(0, 1, places=3),
        st.none() | st.integers(0, 10**6),
    )
)
def test_principle_round_trip(rule):
    assert PrincipleRule.from_json(rule.to_json()) == rule


@given(
    st.builds(ConstitutionRule, st.text(min_size=1, max_size=5), TEXTS.map("<".__add__))
)
def test_constitution_round_trip(rule):
    assert ConstitutionRule.from_json(rule.to_json()) == rule


def profile(share="0.7", **changes):
    return {"method": "lca-trapezoid/1", "inBand": share, "valid": True, **changes}


def resistance(steps=200, **changes):
    return {"measured": {"worst": {"stepsBelowHalf": steps, **changes}}}


HELD = {"id": "honesty", "profile": profile(), "resistance": resistance()}
RULE = PrincipleRule("honesty", Decimal("0.6"), 150)


def misses(*principles):
    return [(miss.code, miss.found) for miss in RULE.misses(list(principles))]


def test_what_was_measured_is_enough():
    assert misses(HELD) == []
    assert misses({"id": "other"}, HELD) == []
    bounds = {"profile": profile("0.6"), "resistance": resistance(150)}
    assert misses({**HELD, **bounds}) == []


@pytest.mark.parametrize(
    ("share", "found"),
    [
        (profile("0.59"), "0.59"),
        (profile("-0.7"), "-0.7"),
        (profile(valid=False), "0.7, not a valid profile"),
        (profile(valid="true"), "0.7, not a valid profile"),
        (profile(valid=1), "0.7, not a valid profile"),
        (profile(0.9), "not measured"),
        (profile("lots"), "not measured"),
        (profile(None), "not measured"),
        ({}, "not measured"),
        ([], "not measured"),
        (None, "not measured"),
    ],
)
def test_absorption_that_is_not_enough(share, found):
    assert misses({**HELD, "profile": share}) == [("policy.absorption", found)]


@pytest.mark.parametrize(
    ("measured", "found"),
    [
        (resistance(149), "149 steps"),
        (resistance("200"), "not measured"),
        (resistance(True), "not measured"),
        (resistance(None), "not measured"),
        ({"measured": {"worst": []}}, "not measured"),
        ({"measured": None}, "not measured"),
        ({}, "not measured"),
        ("200", "not measured"),
    ],
)
def test_resistance_that_is_not_enough(measured, found):
    assert misses({**HELD, "resistance": measured}) == [("policy.resistance", found)]


@pytest.mark.parametrize("principles", [None, {}, "honesty", [], ["honesty"], [{}]])
def test_a_principle_that_is_not_there(principles):
    (miss,) = RULE.misses(principles)
    assert (miss.code, miss.about, miss.found) == (
        "policy.principle",
        "honesty",
        "0 times",
    )


def test_a_principle_that_stands_twice():
    """Which of the two was measured?"""
    assert misses(HELD, HELD) == [("policy.principle", "2 times")]


def test_a_demand_for_the_name_alone():
    assert not list(PrincipleRule("honesty").misses([{"id": "honesty"}]))


@given(st.text())
def test_any_text_as_a_decimal(text):
    found = read_decimal(text)
    assert found is None or found == Decimal(text)
