from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.training.resistance.survival import Duration, kaplan_meier, median

# 6-mercaptopurine against leukaemia, remission in weeks (Freireich et al. 1963), the
# example of every textbook; censored times apart.
LOST = (6, 6, 6, 7, 10, 13, 16, 22, 23)
CENSORED = (6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35)
LEUKAEMIA = [Duration(t) for t in LOST] + [Duration(t, censored=True) for t in CENSORED]

durations = st.lists(
    st.builds(Duration, st.integers(0, 20), st.booleans()), min_size=1, max_size=12
)


def at(points, step):
    return next(p for p in reversed(points) if p.steps <= step)


@pytest.mark.parametrize(
    ("week", "share"),
    [(5, 1), (6, 0.857), (7, 0.807), (10, 0.753), (13, 0.690), (16, 0.627),
     (22, 0.538), (23, 0.448), (35, 0.448)],
)  # fmt: skip
def test_published_estimate_is_reproduced(week, share):
    assert at(kaplan_meier(LEUKAEMIA), week).share == pytest.approx(share, abs=5e-4)


def test_published_median_is_reproduced():
    assert median(LEUKAEMIA) == Duration(23)


def binomial_tail(count, passed, share):
    return sum(
        comb(count, k) * share**k * (1 - share) ** (count - k)
        for k in range(passed, count + 1)
    )


@pytest.mark.parametrize("count", [1, 2, 3, 9, 30])
def test_without_censoring_the_interval_is_clopper_and_pearsons(count):
    points = kaplan_meier([Duration(step) for step in range(1, count + 1)])
    for left, point in zip(range(count, -1, -1), points, strict=True):
        assert point.share == pytest.approx(left / count)
        if left:
            tail = binomial_tail(count, left, point.low)
            assert tail == pytest.approx(0.025, rel=1e-6)
        if left < count:
            tail = 1 - binomial_tail(count, left + 1, point.high)
            assert tail == pytest.approx(0.025, rel=1e-6)


def test_nothing_lost_is_not_certainty():
    points = kaplan_meier([Duration(96, censored=True)] * 3)
    assert points[0].low == pytest.approx(0.2924, abs=1e-4)
    assert (points[-1].share, points[-1].low, points[-1].high) == (1, 0, 1)


def test_no_run_no_curve():
    assert kaplan_meier([]) == []
    assert median([]) is None


@given(durations)
def test_curve_never_rises_and_lies_in_its_interval(found):
    points = kaplan_meier(found)
    shares = [point.share for point in points]
    assert shares == sorted(shares, reverse=True)
    assert all(
        0 <= p.low <= p.share + 1e-9 and p.share - 1e-9 <= p.high <= 1 for p in points
    )


@given(durations)
def test_curve_does_not_depend_on_the_order_of_runs(found):
    assert kaplan_meier(found) == kaplan_meier(sorted(found))


@given(st.lists(st.integers(0, 20), min_size=1, max_size=12))
def test_median_without_censoring_is_the_lower_median(steps):
    assert median([Duration(s) for s in steps]) == Duration(
        sorted(steps)[(len(steps) - 1) // 2]
    )


def test_censored_runs_put_the_median_beyond_the_end():
    found = [Duration(3), *[Duration(8, censored=True)] * 2]
    assert str(median(found)) == ">8"
