import statistics

import pytest
from fakes.profiled import measurement
from hypothesis import given
from hypothesis import strategies as st

from attest.training.profile.measured import Exchange, jackknife


def test_amounts_are_means_over_answer_tokens():
    found = measurement().profile("a")
    # Chunks of 10 and 20 tokens: a third and two thirds.
    assert found.allocated == (436_333, 2_883_333, 0)
    assert found.drop == 3_333_333
    assert found.by_source == {"a": 2_833_333, "b": 486_333}
    assert found.band == (1,)
    assert (found.rows, found.every, found.steps) == (6, 20, 4)


def test_bars_leave_out_one_chunk_at_a_time():
    bars = measurement().profile("a").bars
    assert bars.chunks == 2
    # Shares of L00 in either chunk alone: 499/2949 and 405/3505.
    left = [0.499 / 2.949, 0.405 / 3.505]
    assert bars.layers[0] == pytest.approx(jackknife(left), abs=1e-5)
    assert bars.in_band == pytest.approx(bars.layers[0], abs=1e-4)


def test_one_chunk_has_no_bars():
    whole = measurement()
    item = whole.allocations["a"]
    one = type(item)(
        **{
            **{f: getattr(item, f) for f in item.__slots__},
            "weights": (10,),
            "before": item.before[:1],
            "after": item.after[:1],
            "amounts": {"a": item.amounts["a"][:1]},
        }
    )
    assert measurement(allocations={"a": one}).profile("a").bars is None


def test_no_band_no_bar_of_it():
    assert measurement().profile("b").bars.in_band is None


def test_the_cross_check_is_the_mean_of_both_ways():
    found = measurement()
    assert found.profile("a").check.layers == (200_000, 800_000)
    assert found.profile("b").check is None
    assert found.with_exchanges({}).profile("a").check is None


def test_a_layer_that_hurts_has_no_share():
    assert Exchange((-9, 4, 2), (1, 4, 2)).check(2).layers == (0, 1_000_000)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20))
def test_the_jackknife_of_a_mean_is_its_standard_error(values):
    means = [statistics.fmean(values[:i] + values[i + 1 :]) for i in range(len(values))]
    expected = statistics.stdev(values) / len(values) ** 0.5
    assert jackknife(means) == pytest.approx(expected, abs=1e-6)
