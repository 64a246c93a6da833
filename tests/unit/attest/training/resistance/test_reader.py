import copy

import pytest
from fakes.resistance import resistance, run
from hypothesis import given
from hypothesis import strategies as st

from attest.canonical import canonical
from attest.errors import AttestError, FormatError, UnsupportedVersionError
from attest.training.resistance.reader import parse_resistance

FOUND = resistance().with_control("unrouted", resistance())


def edited(change):
    document = copy.deepcopy(FOUND.document())
    change(document)
    return canonical(document) + b"\n"


def test_what_was_written_is_read():
    assert parse_resistance(FOUND.dumps()) == FOUND


def test_another_schema_asks_for_an_upgrade():
    data = edited(lambda d: d.update(schema="resistance/2"))
    with pytest.raises(UnsupportedVersionError):
        parse_resistance(data)


def test_suite_run_in_an_unknown_way_asks_for_an_upgrade():
    def change(document):
        document["suite"]["optimizers"]["sgd"]["momentum"] = "0.99"

    with pytest.raises(UnsupportedVersionError):
        parse_resistance(edited(change))


def raise_a_point(document):
    document["runs"][2]["curve"][3][1] = 9


def hide_the_worst_run(document):
    del document["runs"][2]


def run_twice(document):
    document["runs"].append(document["runs"][0])


def stop_early(document):
    del document["runs"][0]["curve"][4]


def skip_a_step(document):
    del document["runs"][0]["curve"][1]


def go_on_after_the_loss(document):
    document["runs"][2]["curve"].append([8, 3])


def call_it_held(document):
    document["runs"][2]["ended"] = "held"


def more_than_all(document):
    document["runs"][0]["curve"][1][1] = 11


def other_start(document):
    document["runs"][0]["curve"][0][1] = 9


def swap_the_suite(document):
    document["suite"]["rows"] = 5


def other_principle(document):
    document["runs"][0]["principle"] = "keep"


def attack_of_another_suite(document):
    document["runs"][0]["attack"] = "lora"


def nested_controls(document):
    document["controls"]["unrouted"]["controls"] = {"deeper": document["runs"]}


def float_count(document):
    document["runs"][0]["count"] = 10.5


def boolean_step(document):
    document["runs"][0]["curve"][1][0] = True


def unknown_member(document):
    document["comment"] = "all is well"


def rate_that_is_no_number(document):
    document["suite"]["attacks"][0]["rates"][0] = "fast"


@pytest.mark.parametrize(
    "change",
    [raise_a_point, hide_the_worst_run, run_twice, stop_early, skip_a_step,
     go_on_after_the_loss, call_it_held, more_than_all, other_start, swap_the_suite,
     other_principle, attack_of_another_suite, nested_controls, float_count,
     boolean_step, unknown_member, rate_that_is_no_number],
)  # fmt: skip
def test_contradiction_is_refused(change):
    with pytest.raises(FormatError):
        parse_resistance(edited(change))


def test_attack_left_out_altogether_is_said_and_not_refused():
    runs = tuple(r for r in resistance().runs if r.attack != "restore")
    found = parse_resistance(resistance(runs=runs).dumps())
    assert found.not_run("refuse") == ("restore",)


def test_diverged_run_is_read():
    runs = [*resistance().runs]
    runs[0] = run("full", "0.001", 0, (10, 9), ended="diverged")
    found = resistance(runs=tuple(runs))
    assert parse_resistance(found.dumps()) == found


paths = st.lists(st.integers(0, 10_000), min_size=1, max_size=8)
values = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 2**40), st.text(max_size=5),
    st.just([]), st.just({}), st.just([[0, 1]]),
)  # fmt: skip


@given(paths, values)
def test_any_edit_is_refused_in_our_own_words(path, value):
    document = copy.deepcopy(FOUND.document())
    place = document
    for number in path:
        keys = sorted(place) if isinstance(place, dict) else range(len(place))
        if not keys:
            break
        key = list(keys)[number % len(keys)]
        if isinstance(place[key], dict | list) and number is not path[-1]:
            place = place[key]
            continue
        place[key] = value
        break
    data = canonical(document) + b"\n"
    try:
        found = parse_resistance(data)
    except AttestError:
        return
    assert found.dumps() == data


@given(st.binary(max_size=200))
def test_noise_is_refused_in_our_own_words(data):
    with pytest.raises(AttestError):
        parse_resistance(data)
