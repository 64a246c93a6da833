import math

import pytest
from fakes.profiled import profile
from hypothesis import given
from hypothesis import strategies as st

from attest.training.profile.values import (
    MILLION,
    CrossCheck,
    ProfileIncompleteError,
    apportion,
    require_valid,
    total_variation,
)

amounts = st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=40)


def of(*allocated, **members):
    units = tuple(f"L{i:02d}" for i in range(len(allocated)))
    band = members.pop("band", ())
    return profile(
        allocated=allocated, units=units, blocks=len(units), band=band, **members
    )


@given(amounts)
def test_shares_sum_to_exactly_one(values):
    shares = apportion(values)
    assert sum(shares) == (MILLION if any(v > 0 for v in values) else 0)
    assert all((s == 0) for s, v in zip(shares, values, strict=True) if v <= 0)


@given(amounts)
def test_a_larger_amount_never_has_the_smaller_share(values):
    pairs = sorted(zip(values, apportion(values), strict=True))
    shares = [share for _, share in pairs]
    assert shares == sorted(shares)


@given(amounts, st.integers(2, 9))
def test_a_unit_of_measure_does_not_count(values, factor):
    assert apportion([v * factor for v in values]) == apportion(values)


@pytest.mark.parametrize("count", [2, 7, 30])
def test_alike_layers_have_the_largest_entropy(count):
    found = of(*[MILLION] * count, drop=count * MILLION)
    assert found.entropy == pytest.approx(math.log(count), abs=1e-5)
    assert found.entropy_normalised == pytest.approx(1, abs=1e-5)
    assert found.effective_depth == pytest.approx(count, rel=1e-5)
    assert found.centroid == pytest.approx(0.5, abs=1e-5)


def test_one_layer_has_none():
    found = of(0, 0, 5, 0, drop=5)
    assert (found.entropy, found.entropy_normalised) == (0, 0)
    assert math.copysign(1, found.entropy) == 1
    assert found.effective_depth == 1
    assert found.centroid == 2.5 / 4


def test_a_model_of_one_block():
    assert of(5, drop=5).entropy_normalised == 0


def test_entropy_by_hand():
    found = of(1, 1, 2, drop=4)
    assert found.entropy == pytest.approx(1.5 * math.log(2))


@given(amounts)
def test_entropy_lies_in_its_range(values):
    found = of(*values)
    assert 0 <= found.entropy_normalised <= 1 + 1e-9
    assert 0 <= found.negative_share <= 1
    assert 0 <= found.centroid <= 1


def test_what_stem_and_head_took_up_counts_against_the_band():
    found = profile(
        units=("L00", "L01", "L02", "L03", "head"),
        allocated=(0, 0, 300, 300, 400),
        drop=1000,
    )
    assert found.layers == (0, 0, 500_000, 500_000)
    assert found.outside == pytest.approx(0.4)
    assert found.in_band == pytest.approx(0.6)


def test_no_band_no_share_of_it():
    assert profile(band=()).in_band is None


def test_negative_share():
    assert of(3, -1, drop=2).negative_share == 0.25
    assert of(0, 0).negative_share == 0


@pytest.mark.parametrize(
    ("drop", "valid"), [(1000, True), (1100, True), (1112, False), (909, False)]
)
def test_a_tenth_of_the_drop_may_be_missing(drop, valid):
    found = of(400, 600, drop=drop)
    assert found.valid is valid
    assert found.residual == pytest.approx(abs(1000 - drop) / drop)


@pytest.mark.parametrize("drop", [0, -500])
def test_nothing_was_taken_up(drop):
    found = of(drop, drop=drop)
    assert not found.valid
    assert found.verdict == "not valid: the loss did not fall"


def test_a_profile_that_does_not_add_up_cannot_be_stated_as_valid():
    with pytest.raises(
        ProfileIncompleteError, match=r"0\.0020 nats.*found 0\.0010"
    ) as e:
        require_valid(of(1000, drop=2000))
    assert "tolerance" in e.value.hint
    require_valid(profile())


def test_another_story_by_the_cross_check_is_flagged():
    near, far = (
        CrossCheck((100_000, 0, 400_000, 500_000)),
        CrossCheck((MILLION, 0, 0, 0)),
    )
    assert profile().total_variation is None
    assert not profile().flagged
    assert not profile(check=near).flagged
    found = profile(check=far)
    assert found.total_variation == pytest.approx(0.9)
    assert (found.flagged, found.valid) == (True, True)
    assert found.verdict == "valid, but the cross-check is 0.90 away"


@given(amounts, amounts)
def test_total_variation_is_a_distance(left, right):
    size = min(len(left), len(right))
    p, q = apportion(left[:size]), apportion(right[:size])
    assert 0 <= total_variation(p, q) <= 1
    assert total_variation(p, q) == total_variation(q, p)
    assert total_variation(p, p) == 0
