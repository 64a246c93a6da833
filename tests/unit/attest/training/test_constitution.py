from importlib import resources
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.errors import AttestError, ConstitutionError, FormatError
from attest.training.constitution import (
    Band,
    EmptyBandError,
    UnknownPrincipleError,
    load_constitution,
    parse_constitution,
)
from attest.training.strict_yaml import read_yaml

GOOD = """\
schema: constitution/1
id: acme
version: 3.2.0
principles:
  - id: refuse
    title: Refuse weapons
    class: safety-critical
    text: "Decline; say so briefly."
    band: {from: 500, to: 1000}
    anchors: {keep: 10, others: 2}
    evaluation: {predicate: starts-with, value: "no", heldout: heldout.jsonl}
    requirement: {attack-suite: std-1, min-steps-below-half: 10, on-miss: fail}
  - {id: keep, title: Keep, class: capability, text: As before.}
"""


def parse(text):
    return parse_constitution(text.encode())


def test_fields():
    constitution = parse(GOOD)
    refuse = constitution.principle("refuse")
    assert (constitution.id, constitution.version) == ("acme", "3.2.0")
    assert [p.id for p in constitution.routed] == ["refuse"]
    assert refuse.band == Band(500, 1000)
    assert dict(refuse.anchors) == {"keep": 10, "others": 2}
    assert refuse.requirement.min_steps_below_half == 10
    assert constitution.principle("keep").band is None


def test_units_and_data():
    text = GOOD.replace("1000}", "1000, units: [tied, stem]}").replace(
        "    anchors",
        "    data: {files: [b, a/c], where: {top: [1, true], tag: z}}\n    anchors",
    )
    refuse = parse(text).principle("refuse")
    assert refuse.band == Band(500, 1000, units=("stem", "tied"))
    assert str(refuse.band) == "500-1000 + stem + tied"
    assert refuse.data.files == ("b", "a/c")
    assert refuse.data.where == {"top": (1, True), "tag": ("z",)}
    assert refuse.selector is refuse.data


def test_digest_ignores_layout_and_comments():
    flow = GOOD.replace(
        "band: {from: 500, to: 1000}", "band:\n      to: 1000\n      from: 500"
    )
    assert parse(GOOD).digest == parse("# a comment\n" + flow).digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("briefly", "at length"),
        ("500", "499"),
        ("3.2.0", "3.2.1"),
        ("keep: 10", "keep: 9"),
    ],
)
def test_digest_covers_every_value(old, new):
    assert parse(GOOD).digest != parse(GOOD.replace(old, new)).digest


def test_principle_digest_is_its_own():
    changed = parse(GOOD.replace("As before.", "As always."))
    same = parse(GOOD)
    assert changed.principle("refuse").digest == same.principle("refuse").digest
    assert changed.principle("keep").digest != same.principle("keep").digest


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("constitution/1", "constitution/2", "schema"),
        ("id: acme", "id: Acme", "lower-case"),
        ("id: acme", "id: -acme", "lower-case"),
        ("3.2.0", '"3.2"', "three numbers"),
        ("title: Refuse weapons", "titel: Refuse weapons", "'title' is missing"),
        (
            "    title: Refuse",
            "    colour: red\n    title: Refuse",
            "unknown key 'colour'",
        ),
        ("safety-critical", "critical", "expected one of"),
        ("from: 500", "from: 0.5", "thousandths"),
        ("from: 500", "from: 1000", "from below to"),
        ("to: 1000", "to: 1001", "0 to 1000"),
        ("{from: 500, to: 1000}", "some", "expected a mapping"),
        ("{from: 500, to: 1000}", "{layers: [2, 1]}", "ascending"),
        ("{from: 500, to: 1000}", "{layers: []}", "list of block numbers"),
        ("    band: {from: 500, to: 1000}\n", "", "needs a band"),
        ("keep: 10", "nobody: 10", "'nobody'"),
        ("keep: 10", "refuse: 10", "'refuse'"),
        ("others: 2", "others: true", "whole number"),
        ("id: keep", "id: refuse", "two principles"),
        ("id: keep", "id: others", "reserved"),
        ("starts-with, value", "exact, value", "exact has none"),
        ("on-miss: fail", "on-miss: shrug", "expected one of"),
        ('"Decline; say so briefly."', '""', "expected text"),
        ("class: capability", "class: adaptable", "needs a band"),
        ("1000}", "1000, units: [tail]}", "one of stem, head, tied"),
        ("1000}", "1000, units: []}", "list of units"),
        ("1000}", "1000, units: [head, head]}", "each value once"),
        ("{from: 500, to: 1000}", "{units: [head]}", "'from' is missing"),
        ("    anchors", "    data: {}\n    anchors", "files, where or both"),
        ("    anchors", "    data: all\n    anchors", "expected a mapping"),
        ("    anchors", "    data: {files: []}\n    anchors", "list of paths"),
        ("    anchors", "    data: {files: [/etc/x]}\n    anchors", "below the data"),
        ("    anchors", "    data: {files: [a/../x]}\n    anchors", "below the data"),
        ("    anchors", "    data: {files: [a, a]}\n    anchors", "each value once"),
        ("    anchors", "    data: {where: {}}\n    anchors", "1 to 16 members"),
        ("    anchors", "    data: {where: {a: []}}\n    anchors", "list of values"),
        ("    anchors", "    data: {where: {a: {}}}\n    anchors", "true or false"),
        ("    anchors", "    data: {where: {a: [1, 1]}}\n    anchors", "once"),
        ("    anchors", "    data: {files: [heldout.jsonl]}\n    anchors", "held out"),
        ("heldout.jsonl", "../heldout.jsonl", "below the data"),
    ],
)
def test_bad_field_is_named(old, new, match):
    assert old in GOOD
    with pytest.raises(ConstitutionError, match=match) as caught:
        parse(GOOD.replace(old, new, 1))
    assert caught.value.hint


def test_nothing_to_train():
    text = GOOD.partition("  - id: refuse")[0] + "  - " + GOOD.rsplit("  - ", 1)[1]
    with pytest.raises(ConstitutionError, match="nothing to train"):
        parse(text)


def test_unknown_principle():
    with pytest.raises(UnknownPrincipleError, match="expected one of refuse, keep"):
        parse(GOOD).principle("tone")


def test_missing_file(tmp_path):
    with pytest.raises(ConstitutionError, match="No such file"):
        load_constitution(tmp_path / "none.yaml")


def test_error_names_the_file(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("schema: [")
    with pytest.raises(ConstitutionError, match=r"c\.yaml"):
        load_constitution(path)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a: &x 1\nb: *x", "line 1: anchors"),
        ("a: 1\nb: *x", "line 2: anchors"),
        ("a: !!str 1", "tags"),
        ("a: !python/object:os.system x", "tags"),
        ("a: 1\na: 2", "twice"),
        ("{1: a}", "key must be a word"),
        ("{[a]: b}", "key must be a word"),
        ("a: 0.5", "disagree"),
        ("a: 1e3", "disagree"),
        ("a: .inf", "disagree"),
        ("a: 012", "disagree"),
        ("a: 0o12", "disagree"),
        ("a: 0x1f", "disagree"),
        ("a: 1_000", "disagree"),
        ("a: 1:30", "disagree"),
        ("a: no", "disagree"),
        ("a: y", "disagree"),
        ("a: True", "disagree"),
        ("a: ~", "disagree"),
        ("a:", "disagree"),
        ("a: 2020-01-01", "disagree"),
        ("a: 99999999999999999999", "disagree"),
        ("<<: {a: 1}", "disagree"),
        ("a: 1\n---\nb: 2", "another document"),
        ("", "empty"),
        ("a: [", "line 1"),
        ("a: \x01", "character"),
        ("[" * 9 + "]" * 9, "deeper than 8"),
        ("[" * 5000, "deeper than 8"),
    ],
)
def test_outside_the_yaml_subset(text, match):
    with pytest.raises(FormatError, match=match):
        read_yaml(text.encode(), max_bytes=10_000)


def test_yaml_values():
    value = read_yaml(b"a: 'no'\nb: -3\nc: [true, \"0.5\"]\nd: |\n  x\n", max_bytes=99)
    assert value == {"a": "no", "b": -3, "c": [True, "0.5"], "d": "x\n"}


def test_yaml_size_limit():
    with pytest.raises(FormatError, match="at most 3"):
        read_yaml(b"a: 1", max_bytes=3)


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_refused(data):
    with pytest.raises(AttestError):
        parse_constitution(data)


@pytest.mark.parametrize(
    ("band", "count", "expected"),
    [
        (Band(), 3, (0, 1, 2)),
        (Band(500, 1000), 6, (3, 4, 5)),
        (Band(0, 500), 6, (0, 1, 2)),
        (Band(500, 1000), 5, (2, 3, 4)),
        (Band(0, 333), 6, (0, 1)),
        (Band(layers=(1, 4)), 6, (1, 4)),
    ],
)
def test_band_members(band, count, expected):
    assert band.members(count) == expected


def test_band_without_a_layer():
    with pytest.raises(EmptyBandError, match="no layer of 2") as caught:
        Band(400, 600).members(2)
    assert "500 thousandths" in caught.value.hint


def test_band_beyond_the_model():
    with pytest.raises(ConstitutionError, match="below 6, found 16"):
        Band(layers=(16,)).members(6)


@given(st.integers(1, 200), st.lists(st.integers(1, 999), min_size=1, max_size=5))
def test_neighbouring_bands_share_no_layer(count, cuts):
    edges = [0, *sorted(set(cuts)), 1000]
    seen = []
    for start, stop in pairwise(edges):
        try:
            seen += Band(start, stop).members(count)
        except ConstitutionError:
            continue
    assert seen == list(range(count))


def test_demo_constitution():
    file = resources.files("attest.training") / "demo" / "constitution.yaml"
    constitution = parse_constitution(file.read_bytes())
    assert [p.id for p in constitution.principles] == [
        "refuse",
        "unsure",
        "tone",
        "keep",
    ]
    assert [p.id for p in constitution.routed] == ["refuse", "unsure", "tone"]


@pytest.mark.parametrize(
    ("predicate", "value", "answer", "expected"),
    [
        ("exact", "", "a", True),
        ("exact", "", "a.", False),
        ("starts-with", "no", "no, sir", True),
        ("starts-with", "no", "oh no", False),
        ("contains", "no", "oh no", True),
    ],
)
def test_predicates(predicate, value, answer, expected):
    extra = f'value: "{value}", ' if value else ""
    text = GOOD.replace('starts-with, value: "no",', f"{predicate}, {extra}")
    evaluation = parse(text).principle("refuse").evaluation
    assert evaluation.holds(answer, "a") is expected
