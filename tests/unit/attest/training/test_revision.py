import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.errors import ConstitutionError
from attest.training.constitution import parse_constitution
from attest.training.revision import Part, revise

TEXT = """\
schema: constitution/1
id: acme
version: 1.2.3
principles:
  - id: refuse
    title: Refuse weapons
    class: safety-critical
    text: Decline.
    band: {from: 500, to: 1000}
    anchors: {keep: 10, others: 2}
    data: {files: [a.jsonl], where: {topic: arms}}
    evaluation: {predicate: starts-with, value: "no", heldout: heldout.jsonl}
    requirement: {attack-suite: std-1, min-steps-below-half: 10, on-miss: warn}
  - {id: tone, title: Tone, class: adaptable, text: Be kind., band: all}
  - {id: keep, title: Keep, class: capability, text: As before.}
"""
TONE, KEEP = TEXT.splitlines(keepends=True)[-2:]


def revision(*edits, version="1.2.3"):
    text = TEXT.replace("1.2.3", version)
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    return revise(parse_constitution(TEXT.encode()), parse_constitution(text.encode()))


@pytest.mark.parametrize(
    ("edit", "part", "words"),
    [
        (("Decline.", "Accept."), "major", "text: 'Decline.' → 'Accept.'"),
        (("safety-critical", "adaptable"), "major", "class: safety-critical → adap"),
        ((TONE, ""), "major", "taken away (adaptable)"),
        (("class: adaptable", "class: safety-critical"), "minor", "class: adaptable →"),
        (("class: adaptable", "class: capability"), "minor", "class: adaptable →"),
        (("Be kind.", "Be curt."), "minor", "text: 'Be kind.' → 'Be curt.'"),
        (("500", "400"), "minor", "band: 500-1000 → 400-1000"),
        (("1000}", "1000, units: [head]}"), "minor", "→ 500-1000 + head"),
        (("keep: 10", "keep: 9"), "minor", "anchors: 10 keep, 2 others → 9 keep"),
        ((", others: 2", ""), "minor", "anchors: 10 keep, 2 others → 10 keep"),
        (("topic: arms", "topic: [arms, 3]"), "minor", '→ "a.jsonl"; topic is "arms"'),
        (
            ("    data: {files: [a.jsonl], where: {topic: arms}}\n", ""),
            "minor",
            "→ rows that name it",
        ),
        (("heldout.jsonl", "test.jsonl"), "minor", "→ starts-with 'no' in test.jsonl"),
        (("std-1", "std-2"), "minor", "→ 10 steps in std-2, warn on a miss"),
        (("half: 10", "half: 9"), "minor", "(asks for less)"),
        (("warn", "record"), "minor", "(asks for less)"),
        (("Refuse weapons", "Refuse arms"), "patch", "title: 'Refuse weapons' →"),
        ((TONE + KEEP, KEEP + TONE), "patch", "another order"),
        (("topic: arms", "topic: [arms]"), "patch", "written in another way"),
        (
            (KEEP, KEEP + TONE.replace("tone", "new")),
            "minor",
            "new (adaptable)",
        ),
    ],
)
def test_change(edit, part, words):
    (change,) = revision(edit).changes
    assert str(change.part) == part
    assert words in change.words


@pytest.mark.parametrize("edit", [("half: 10", "half: 11"), ("warn", "fail")])
def test_a_stricter_requirement_asks_for_no_less(edit):
    (change,) = revision(edit).changes
    assert "asks for less" not in change.words


def test_requirement_taken_away_asks_for_less():
    line = TEXT[TEXT.index("    requirement") :].partition("\n")[0] + "\n"
    (change,) = revision((line, "")).changes
    assert change.words.endswith("→ none (asks for less)")


def test_text_that_becomes_safety_critical_counts_as_such():
    edits = [("class: adaptable", "class: safety-critical"), ("Be kind.", "Obey.")]
    assert revision(*edits).needed is Part.MAJOR


@given(
    st.text("ab ", max_size=120),
    st.text("cd", max_size=5),
    st.text("ab ", max_size=120),
)
def test_long_texts_show_where_they_differ(before, new, after):
    old, changed = (f"'{before}{word}{after}.'" for word in ("x", new))
    edit = ("text: Decline.", f"text: {json.dumps(old)}")
    first = parse_constitution(TEXT.replace(*edit).encode())
    edit = ("text: Decline.", f"text: {json.dumps(changed)}")
    (change,) = revise(first, parse_constitution(TEXT.replace(*edit).encode())).changes
    assert "x" in change.words
    assert new in change.words
    assert len(change.words) < 200


def test_comments_and_layout_change_nothing():
    found = revision(("    title: Refuse", "    # a comment\n    title:   Refuse"))
    assert found.changes == ()
    assert found.needed is Part.NONE
    assert found.enough


MAJOR, MINOR, PATCH = ("Decline.", "Accept."), ("500", "400"), ("Tone", "Manners")


@pytest.mark.parametrize(
    ("edits", "version", "enough", "least"),
    [
        ([], "1.2.3", True, "1.2.3"),
        ([], "1.2.2", False, "1.2.3"),
        ([], "2.0.0", True, "1.2.3"),
        ([PATCH], "1.2.3", False, "1.2.4"),
        ([PATCH], "1.2.4", True, "1.2.4"),
        ([PATCH], "1.1.9", False, "1.2.4"),
        ([MINOR], "1.2.4", False, "1.3.0"),
        ([MINOR], "1.3.0", True, "1.3.0"),
        ([MINOR], "0.9.0", False, "1.3.0"),
        ([MINOR, PATCH], "1.10.0", True, "1.3.0"),
        ([MAJOR], "1.3.0", False, "2.0.0"),
        ([MAJOR, PATCH], "1.99.99", False, "2.0.0"),
        ([MAJOR], "2.0.0", True, "2.0.0"),
        ([PATCH], "3.1.4", True, "1.2.4"),
    ],
)
def test_version(edits, version, enough, least):
    found = revision(*edits, version=version)
    assert (found.enough, found.least) == (enough, least)


@given(
    st.tuples(*[st.integers(0, 20)] * 3),
    st.sampled_from([(PATCH,), (MINOR,), (MAJOR,), (MAJOR, PATCH)]),
)
def test_the_least_version_is_the_least(version, edits):
    text = ".".join(map(str, version))
    found = revision(*edits, version=text)
    least = tuple(map(int, found.least.split(".")))
    assert found.enough == (version >= least)


def test_two_constitutions_are_not_compared():
    other = parse_constitution(TEXT.replace("id: acme", "id: else").encode())
    with pytest.raises(ConstitutionError, match="found acme and else") as caught:
        revise(parse_constitution(TEXT.encode()), other)
    assert caught.value.hint
