"""From a constitution and a layout to routes, to `schedule.json` and back. No torch."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.errors import (
    AttestError,
    ConstitutionError,
    FormatError,
    UnsupportedVersionError,
)
from attest.training.constitution import (
    EmptyBandError,
    UnknownPrincipleError,
    parse_constitution,
)
from attest.training.routing import Layout, compile_schedule, layer_unit
from attest.training.schedule import parse_schedule

HEADER = """\
schema: constitution/1
id: acme
version: 1.0.0
principles:
  - {id: keep, title: K, class: capability, text: K}
"""


def constitution(**bands):
    lines = [
        f"  - {{id: {name}, title: T, class: adaptable, text: T, band: {band}}}\n"
        for name, band in bands.items()
    ]
    return parse_constitution((HEADER + "".join(lines)).encode())


def layout(count=4, *, frozen=(), **outside):
    units = {f"blocks.{n}.{t}": layer_unit(n) for n in range(count) for t in "wb"}
    units |= outside or {"embed": "stem", "norm": "head", "out": "head"}
    return Layout("Toy", "blocks", count, units, frozenset(frozen))


HALVES = constitution(deep="{from: 500, to: 1000}", early="{from: 0, to: 500}")


def test_routes():
    schedule = compile_schedule(HALVES, layout())
    assert list(schedule.routes) == ["deep", "early"]
    assert schedule.anchored == ("keep",)
    deep = schedule.route("deep")
    assert deep.layers == (2, 3)
    assert deep.tensors == ("blocks.2.b", "blocks.2.w", "blocks.3.b", "blocks.3.w")
    assert deep.digest != schedule.route("early").digest


def test_stem_head_tied_and_aside_stay_frozen():
    everywhere = constitution(a="all")
    found = layout(e="stem", h="head", t="tied", x="aside")
    route = compile_schedule(everywhere, found).route("a")
    assert not {"e", "h", "t", "x"} & set(route.tensors)
    assert route.layers == (0, 1, 2, 3)


@pytest.mark.parametrize("unit", ["stem", "head", "tied"])
def test_named_unit_is_routed(unit):
    named = constitution(a=f"{{layers: [1], units: [{unit}]}}")
    found = layout(e="stem", h="head", t="tied", x="aside")
    route = compile_schedule(named, found).route("a")
    assert route.units == (unit,)
    assert set(route.tensors) == {"blocks.1.b", "blocks.1.w", unit[0].replace("s", "e")}


def test_order_in_which_units_are_named_does_not_count():
    found = layout(e="stem", h="head")
    one, two = (
        compile_schedule(constitution(a=f"{{from: 0, to: 500, units: {units}}}"), found)
        for units in ("[stem, head]", "[head, stem]")
    )
    assert one.route("a") == two.route("a")


def test_unit_that_the_model_does_not_have():
    named = constitution(a="{from: 0, to: 1000, units: [tied]}")
    with pytest.raises(ConstitutionError, match="found 'tied'; it has stem, head"):
        compile_schedule(named, layout())


def test_frozen_tensors_are_in_no_route():
    frozen = [n for n in layout().units if n.endswith("w") or n in ("embed", "norm")]
    named = constitution(a="{from: 500, to: 1000, units: [stem, head]}")
    route = compile_schedule(named, layout(frozen=frozen)).route("a")
    assert route.tensors == ("blocks.2.b", "blocks.3.b", "out")
    assert route.units == ("head",)


def test_layers_without_a_trained_tensor_are_not_of_the_route():
    found = layout(frozen=["blocks.3.w", "blocks.3.b"])
    assert compile_schedule(HALVES, found).route("deep").layers == (2,)


def test_band_that_is_wholly_frozen():
    found = layout(frozen=[n for n in layout().units if n[7:8] in "23"])
    with pytest.raises(EmptyBandError, match=r"'deep'.*frozen") as caught:
        compile_schedule(HALVES, found)
    assert "adapters" in caught.value.hint


def test_band_without_a_layer_names_the_principle():
    narrow = constitution(a="{from: 0, to: 500}", tone="{from: 0, to: 50}")
    with pytest.raises(EmptyBandError, match=r"'tone'.*no layer of 4") as caught:
        compile_schedule(narrow, layout())
    assert "250 thousandths" in caught.value.hint


def test_no_route():
    schedule = compile_schedule(HALVES, layout())
    with pytest.raises(ConstitutionError, match="no route") as caught:
        schedule.route("keep")
    assert not isinstance(caught.value, UnknownPrincipleError)
    with pytest.raises(UnknownPrincipleError, match="one of deep, early"):
        schedule.route("nobody")


# --- the file ------------------------------------------------------------------------


def test_digest_is_that_of_sha256sum():
    schedule = compile_schedule(HALVES, layout())
    found = hashlib.sha256(schedule.dumps()).hexdigest()
    assert schedule.digest == "sha256:" + found


@st.composite
def schedules(draw):
    count = draw(st.integers(1, 12))
    outside = draw(st.sets(st.sampled_from(["stem", "head", "tied", "aside"])))
    found = layout(count, **{f"x.{u}": u for u in outside})
    names = draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True))
    free = sorted(outside - {"aside"})
    bands = {}
    for name in names:
        layers = sorted(draw(st.sets(st.integers(0, count - 1), min_size=1)))
        units = draw(st.sets(st.sampled_from(free))) if free else set()
        more = f", units: [{', '.join(sorted(units))}]" if units else ""
        bands[name] = f"{{layers: {layers}{more}}}"
    frozen = draw(st.sets(st.sampled_from(sorted(found.units))))
    frozen -= {f"blocks.{n}.w" for n in range(count)}
    return compile_schedule(
        constitution(**bands),
        Layout("Toy", "blocks", count, found.units, frozenset(frozen)),
    )


@given(schedules())
def test_written_and_read_again(schedule):
    again = parse_schedule(schedule.dumps())
    assert again == schedule
    assert again.digest == schedule.digest


SCHEDULE = compile_schedule(
    constitution(deep="{from: 500, to: 1000, units: [head]}", early="{layers: [0]}"),
    layout(frozen=["embed"]),
)


def edited(change):
    document = json.loads(SCHEDULE.dumps())
    change(document)
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def test_unedited_is_read():
    assert parse_schedule(edited(lambda _: None)) == SCHEDULE


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["routes"][0].update(layers=[3]),
        lambda d: d["routes"][0].update(units=[]),
        lambda d: d["routes"][0].update(principle="other"),
        lambda d: d["routes"][0].update(digest="sha256:" + 64 * "0"),
        lambda d: d["routes"][0].update(digest="md5"),
        lambda d: d["routes"][0].update(layers=[2, 3, 4]),
        lambda d: d["routes"][0].update(layers=[3, 2]),
        lambda d: d["routes"][0].update(layers=[2, 2, 3]),
        lambda d: d["routes"][0].update(layers=[True, 2, 3]),
        lambda d: d["routes"][0].update(layers=[]),
        lambda d: d["routes"][0].update(layers="23"),
        lambda d: d["routes"][0].update(units=["aside"]),
        lambda d: d["routes"][0].update(more=1),
        lambda d: d["routes"].append(d["routes"][0]),
        lambda d: d["routes"].append("x"),
        lambda d: d["tensors"]["L03"].append("embed"),
        lambda d: d["tensors"]["L03"].append("new"),
        lambda d: d["tensors"]["L03"].reverse(),
        lambda d: d["tensors"]["L03"].append(3),
        lambda d: d["tensors"].pop("L03"),
        lambda d: d["tensors"].update(L04=["new"]),
        lambda d: d["tensors"].update(L3=d["tensors"].pop("L03")),
        lambda d: d["tensors"].update(tied=[]),
        lambda d: d.update(tensors=[]),
        lambda d: d["frozen"].append("blocks.3.w"),
        lambda d: d["frozen"].append("nowhere"),
        lambda d: d["frozen"].append("embed"),
        lambda d: d["model"].update(count=0),
        lambda d: d["model"].update(count=10**9),
        lambda d: d["model"].update(count=True),
        lambda d: d["model"].update(architecture=""),
        lambda d: d["model"].update(blocks="\ud800"),
        lambda d: d["model"].pop("blocks"),
        lambda d: d.update(constitution="sha256:0"),
        lambda d: d.update(anchored=["A"]),
        lambda d: d.update(anchored=["keep", "deep"]),
        lambda d: d.update(anchored=["keep", "keep"]),
        lambda d: d.update(schema="manifest/1"),
        lambda d: d.pop("frozen"),
        lambda d: d.update(more=1),
    ],
)
def test_edited_schedule_is_refused(change):
    with pytest.raises(FormatError) as caught:
        parse_schedule(edited(change))
    assert type(caught.value) is FormatError


def test_moved_tensor_names_the_principle():
    def move(document):
        document["tensors"]["L01"].append(document["tensors"]["L02"].pop())

    with pytest.raises(FormatError, match="principle 'deep': its digest"):
        parse_schedule(edited(move))


def test_newer_format():
    with pytest.raises(UnsupportedVersionError) as caught:
        parse_schedule(edited(lambda d: d.update(schema="schedule/2")))
    assert "upgrade" in caught.value.hint


@pytest.mark.parametrize(
    "data",
    [
        SCHEDULE.dumps() + b"\n",
        json.dumps(SCHEDULE.to_json(), indent=1).encode(),
        SCHEDULE.dumps()[:-1],
        b"",
        b"[]",
        b"{}",
    ],
)
def test_other_bytes_are_refused(data):
    with pytest.raises(FormatError):
        parse_schedule(data)


@given(st.integers(0, len(SCHEDULE.dumps()) - 1), st.integers(1, 255))
def test_every_byte_counts(place, change):
    data = bytearray(SCHEDULE.dumps())
    data[place] ^= change
    try:
        found = parse_schedule(bytes(data))
    except AttestError:
        return
    # Names that no digest covers may differ; then the schedule's own digest does.
    assert found.digest != SCHEDULE.digest
