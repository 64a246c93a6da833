"""One page for all workers: what counts of each number."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.auth import ApiKeys
from gateway.scrape import StateCollector
from gateway.settings import LimitSettings
from gateway.state import AppState
from gateway.workers.merge import Counted, counts, merge
from gateway.workers.messages import Family, Sample


def family(name, kind, *values):
    """Samples of one name, told by a label."""
    samples = [
        Sample(name=name, labels={"n": str(n)}, value=value)
        for n, value in enumerate(values)
    ]
    return Family(name=f"attest_gateway_{name}", text=".", type=kind, samples=samples)


def values(page):
    return {s.name: s.value for f in page for s in f.samples}


def test_counts_are_summed_label_by_label():
    pages = [[family("c", "counter", 1, 2)], [family("c", "counter", 10, 20, 30)]]
    [found] = merge(pages)
    assert [(s.labels["n"], s.value) for s in found.samples] == [
        ("0", 11),
        ("1", 22),
        ("2", 30),
    ]


def test_gauges_say_what_holds_for_the_whole():
    def page(in_flight, ready, last, hashing):
        return [
            family("requests_in_flight", "gauge", in_flight),
            family("ready", "gauge", ready),
            family("last_verified_timestamp_seconds", "gauge", last),
            family("weights_verification_duration_seconds", "gauge", hashing),
        ]

    found = values(merge([page(3, 1, 100, 0), page(4, 0, 90, 0), page(0, 1, 95, 7)]))
    assert found == {
        "requests_in_flight": 7,
        "ready": 0,
        "last_verified_timestamp_seconds": 90,
        "weights_verification_duration_seconds": 7,
    }


def test_page_of_the_gateway_survives_the_way():
    state = AppState(LimitSettings(), ApiKeys())
    state.metrics.refused["/v1/models", "authentication"].inc()
    page = list(map(Family.of, StateCollector(state).collect()))
    again = [Family.model_validate(f.model_dump()).metric() for f in merge([page])]
    found = StateCollector(state).collect()
    assert [(m.name, m.type) for m in again] == [(m.name, m.type) for m in found]
    twice = values(merge([page, page]))
    assert twice["attest_gateway_responses_refused_total"] == 2
    assert twice["attest_gateway_build_info"] == 1


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 5), st.booleans()), max_size=30
    )
)
def test_counts_never_shrink_whoever_is_silent_or_ends(steps):
    """Each step: a worker counts some, and tells; or it ends, and begins anew."""
    counted, own, before = Counted(), dict.fromkeys(range(3), 0), 0
    for number, more, ends in steps:
        if ends:
            counted.retire(number)
            own[number] = 0
        own[number] += more
        page = [family("c", "counter", own[number])]
        counted.note(number, page)
        total = values(merge([page, *counted.besides({number})]))["c"]
        assert total >= before
        before = total


def test_gauges_of_the_silent_are_left_out():
    page = [family("c", "counter", 1), family("ready", "gauge", 1)]
    counted = Counted()
    counted.note(0, page)
    assert counts(page) == page[:1]
    assert values(merge(counted.besides(()))) == {"c": 1}
