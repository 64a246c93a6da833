import copy
import json

import pytest
from fakes.profiled import measurement, profile
from hypothesis import given
from hypothesis import strategies as st

from attest.canonical import canonical, reject_floats
from attest.errors import AttestError, FormatError, UnsupportedVersionError
from attest.training.profile.decimals import (
    amount,
    figure,
    read_amount,
    read_figure,
)
from attest.training.profile.entry import profile_entry, read_entry, read_profiles
from attest.training.profile.values import (
    Bars,
    CrossCheck,
    ProfileIncompleteError,
    ProfileInconsistentError,
)

WHOLE = profile(
    bars=Bars(4, (0.01, 0.0, 0.02, 0.03), 0.05, 0.01, 0.02),
    check=CrossCheck((100_000, 0, 300_000, 600_000)),
)


def read(entry, band=(2, 3)):
    return read_entry(entry, principle="refuse", band=band)


@pytest.fixture
def entry():
    return profile_entry(WHOLE)


def test_what_is_written_is_read(entry):
    reject_floats(entry)
    assert read(json.loads(json.dumps(entry))) == WHOLE


def test_the_order_of_members_does_not_count(entry):
    assert read(json.loads(canonical(entry))) == WHOLE


def test_a_hundred_layers_in_canonical_order():
    units = tuple(f"L{i:02d}" for i in range(120))
    long = profile(
        units=(*units, "stem"),
        blocks=120,
        allocated=(8000,) * 121,
        drop=960_000,
        band=(),
        by_source={"refuse": 968_000},
    )
    assert read(json.loads(canonical(profile_entry(long))), band=()).units == long.units


@given(
    st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=9),
    st.integers(-(10**9), 10**9),
)
def test_every_profile_reads_back(amounts, drop):
    units = tuple(f"L{i:02d}" for i in range(len(amounts)))
    made = profile(
        units=units,
        blocks=len(units),
        allocated=tuple(amounts),
        drop=drop,
        by_source={"refuse": sum(amounts)},
        band=(0,),
    )
    assert read(profile_entry(made), band=(0,)) == made


def test_of_a_measurement():
    made = measurement().profile("a")
    found = read_entry(profile_entry(made), principle="a", band=(1,))
    assert found.allocated == made.allocated
    assert found.bars.layers == pytest.approx(made.bars.layers, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("entropy", "0.1000"),
        ("entropyNormalised", "0.0100"),
        ("effectiveDepth", "1.1000"),
        ("centroid", "0.9900"),
        ("inBand", "0.9900"),
        ("inBand", None),
        ("outside", "0.1000"),
        ("negativeShare", "0.0000"),
        ("residual", "0.0000"),
        ("valid", False),
        ("valid", "true"),
        ("layers", ["0.000000", "0.000000", "0.000000", "1.000000"]),
        ("drop", "1.000000"),
        ("bySource", {"refuse": "0.960000"}),
    ],
)
def test_a_number_that_does_not_follow_is_refused(entry, name, value):
    with pytest.raises(
        ProfileInconsistentError, match=f"profile of 'refuse'.{name}|resid"
    ):
        read({**entry, name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("totalVariation", "0.0000"), ("flagged", True)]
)
def test_a_cross_check_that_does_not_follow_is_refused(entry, name, value):
    entry["crossCheck"][name] = value
    with pytest.raises(ProfileInconsistentError, match=name):
        read(entry)


def test_a_profile_that_claims_to_add_up_and_does_not(entry):
    wrong = profile_entry(profile(drop=2_000_000))
    assert wrong["valid"] is False
    assert not read(wrong).valid
    with pytest.raises(ProfileIncompleteError, match="doesn't add up"):
        read({**wrong, "valid": True})


def test_another_band_than_the_routing_says(entry):
    with pytest.raises(ProfileInconsistentError, match="inBand"):
        read(entry, band=(0, 1))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("steps",), 0),
        (("steps",), True),
        (("rows",), "12"),
        (("probe",), "sha256:00"),
        (("allocation",), {}),
        (("allocation",), []),
        (("allocation", "L07"), "0.000000"),
        (("allocation", "L00"), "0.1"),
        (("allocation", "L00"), 0.1),
        (("allocation", "L00"), "-0.000000"),
        (("allocation", "L00"), "\u0660.\u0661\u0660\u0660\u0660\u0660\u0660"),
        (("entropy",), "1.1e0"),
        (("entropy",), None),
        (("crossCheck", "layers"), ["1.000000"]),
        (("crossCheck", "layers"), ["0.500000"] * 4),
        (("crossCheck", "layers"), ["2.000000", "-1.000000", "0.000000", "0.000000"]),
        (("errorBars", "layers"), "none"),
        (("errorBars", "extra"), "1"),
        (("extra",), 1),
        (("carried",), False),
    ],
)
def test_another_form_is_refused(entry, path, value):
    changed = copy.deepcopy(entry)
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(FormatError):
        read(changed)


@pytest.mark.parametrize("name", sorted(profile_entry(WHOLE)))
def test_a_missing_member_is_refused(entry, name):
    del entry[name]
    with pytest.raises((FormatError, UnsupportedVersionError), match=name):
        read(entry)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "lca-trapezoid/1"},
        {"errorBars": {"method": "other/9"}},
        {"crossCheck": {"method": "other/9"}},
    ],
)
def test_another_method_asks_for_an_upgrade(entry, change):
    with pytest.raises(UnsupportedVersionError) as caught:
        read({**entry, **change})
    assert "upgrade" in caught.value.hint


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@given(st.sampled_from(sorted(profile_entry(WHOLE))), json_values)
def test_no_value_breaks_the_reader(name, value):
    entry = {**profile_entry(WHOLE), name: value}
    try:
        found = read(entry)
    except AttestError:
        return
    assert profile_entry(found).keys() == entry.keys()


def principle(**members):
    return {"id": "refuse", "routing": {"layers": [2, 3]}, **members}


def test_profiles_of_a_statement(entry):
    parent = {"of": "parent", "manifest": "sha256:" + "0" * 64}
    statement = [
        principle(profile=entry),
        principle(id="b", profile={**entry, "carried": True}),
        principle(id="c", profile=parent),
        principle(id="d", profile=None),
        principle(id="e"),
    ]
    assert [p.principle for p in read_profiles(statement)] == ["refuse", "b"]
    assert read_profiles([]) == ()


@pytest.mark.parametrize(
    "principles",
    [
        {},
        ["refuse"],
        [{"id": 3}],
        [{"id": "a", "profile": 3}],
        [principle(routing={"layers": "all"}, profile=profile_entry(WHOLE))],
        [principle(routing={"layers": [3, 2]}, profile=profile_entry(WHOLE))],
        [principle(routing={"layers": [True]}, profile=profile_entry(WHOLE))],
        [principle()] * 300,
    ],
)
def test_no_statement(principles):
    with pytest.raises(FormatError):
        read_profiles(principles)


@given(st.integers(-(10**14), 10**14))
def test_amounts_keep_every_digit(value):
    assert read_amount(amount(value), "x") == value


@given(st.floats(0, 1e8))
def test_figures_keep_four(value):
    assert abs(read_figure(figure(value), "x") / 1e4 - value) < 1e-4


def test_a_figure_without_bounds_stays_readable():
    assert read_figure(figure(1e30), "x") > 0
