import json

import pytest

from attest.errors import ConfigurationError
from attest.training.constitution import (
    PrincipleWithoutDataError,
    UnknownPrincipleError,
    parse_constitution,
)
from attest.training.selection import AmbiguousRowError, drawn, principle_of, survey

HEADER = """\
schema: constitution/1
id: acme
version: 1.0.0
principles:
"""


def constitution(*principles):
    rows = [
        f"  - {{id: {name}, title: T, text: T, class: {kind}, {more}}}\n"
        for name, kind, more in principles
    ]
    return parse_constitution((HEADER + "".join(rows)).encode())


def trained(name="a", more="band: all"):
    return name, "adaptable", more


def data(selector):
    return trained(more=f"band: all, data: {selector}")


KEEP = ("keep", "capability", "anchors: {}")


@pytest.mark.parametrize(
    ("selector", "row", "file", "expected"),
    [
        ("{files: [x/y.jsonl]}", {}, "x/y.jsonl", True),
        ("{files: [x/y.jsonl]}", {}, "y.jsonl", False),
        ("{files: [x.jsonl]}", {}, "", False),
        ("{where: {topic: arms}}", {"topic": "arms"}, "any", True),
        ("{where: {topic: arms}}", {"topic": "Arms"}, "any", False),
        ("{where: {topic: arms}}", {"topic": ["arms"]}, "any", False),
        ("{where: {topic: arms}}", {}, "any", False),
        ("{where: {topic: [arms, drugs]}}", {"topic": "drugs"}, "", True),
        ("{where: {topic: arms, safe: true}}", {"topic": "arms"}, "", False),
        ("{where: {topic: arms, safe: true}}", {"topic": "arms", "safe": 1}, "", False),
        (
            "{where: {topic: arms, safe: true}}",
            {"topic": "arms", "safe": True},
            "",
            True,
        ),
        ("{where: {level: 1}}", {"level": True}, "", False),
        ("{where: {level: 1}}", {"level": 1.0}, "", False),
        ("{where: {level: 1}}", {"level": "1"}, "", False),
        ("{where: {level: 1}}", {"level": None}, "", False),
        ("{files: [x], where: {level: 1}}", {"level": 1}, "x", True),
        ("{files: [x], where: {level: 1}}", {"level": 2}, "x", False),
        # Its own selector replaces the rule that rows name their principle.
        ("{where: {level: 1}}", {"principle": "a", "level": 2}, "", False),
    ],
)
def test_selector(selector, row, file, expected):
    found = constitution(data(selector))
    if expected:
        assert principle_of(found, row, file=file) == "a"
    else:
        with pytest.raises(UnknownPrincipleError) as caught:
            principle_of(found, row, file=file)
        assert caught.value.hint


def test_without_data_rows_name_their_principle():
    found = constitution(trained(), KEEP)
    assert principle_of(found, {"principle": "keep"}) == "keep"


@pytest.mark.parametrize("name", ["nobody", "", "A" * 65, 3, ["a"], None])
def test_unknown_principle(name):
    with pytest.raises(UnknownPrincipleError) as caught:
        principle_of(constitution(trained()), {"principle": name})
    assert "AAA" not in str(caught.value)


def test_row_of_two_principles():
    found = constitution(data("{files: [x]}"), trained("b"))
    with pytest.raises(AmbiguousRowError, match="to a and to b") as caught:
        principle_of(found, {"principle": "b"}, file="x")
    assert "narrow" in caught.value.hint


def test_drawn_are_the_routed_and_their_anchors():
    found = constitution(
        trained("a", "band: all, anchors: {b: 0, c: 1}"),
        KEEP,
        ("b", "capability", "anchors: {keep: 5}"),
        ("c", "capability", "anchors: {}"),
    )
    assert [p.id for p in drawn(found)] == ["a", "c"]
    found = constitution(trained("a", "band: all, anchors: {others: 1}"), KEEP)
    assert [p.id for p in drawn(found)] == ["a", "keep"]


# --- a directory -------------------------------------------------------------------


def write(directory, **files):
    for name, rows in files.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (directory / f"{name}.jsonl").write_text(lines)


A, B, OTHER = {"principle": "a"}, {"principle": "b", "score": 0.5}, {"text": "x"}
EVALUATED = "band: all, evaluation: {predicate: exact, heldout: h.jsonl}"


def test_survey(tmp_path):
    write(tmp_path, one=[A, B, A], two=[A, OTHER], h=[A, A, A, B])
    (tmp_path / "notes.txt").write_text("not rows")
    counted = survey(constitution(trained("a", EVALUATED), trained("b")), tmp_path)
    assert counted.rows == {
        "a": {"one.jsonl": 2, "two.jsonl": 1},
        "b": {"one.jsonl": 1},
    }
    assert counted.heldout == {"a": 3}
    assert counted.unselected == {"two.jsonl": 1}


def test_files_of_selectors_are_read_where_they_are(tmp_path):
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep", x=[OTHER, OTHER])
    counted = survey(constitution(data("{files: [deep/x.jsonl]}")), tmp_path)
    assert counted.rows == {"a": {"deep/x.jsonl": 2}}


def test_heldout_rows_need_not_be_in_the_selected_file(tmp_path):
    write(tmp_path, x=[OTHER], h=[OTHER])
    more = f"{EVALUATED}, data: {{files: [x.jsonl]}}"
    assert survey(constitution(trained("a", more)), tmp_path).heldout == {"a": 1}


def test_principle_without_data(tmp_path):
    write(tmp_path, one=[A])
    found = constitution(trained("a"), trained("b"))
    with pytest.raises(PrincipleWithoutDataError, match=r"'b'.*to train on") as caught:
        survey(found, tmp_path)
    assert '"principle": "b"' in caught.value.hint


def test_selector_that_selects_nothing(tmp_path):
    write(tmp_path, one=[A])
    with pytest.raises(PrincipleWithoutDataError) as caught:
        survey(constitution(data("{where: {x: 1}}")), tmp_path)
    assert "no row has what it selects" in caught.value.hint


def test_anchored_principle_without_data(tmp_path):
    write(tmp_path, one=[A])
    anchored = trained("a", "band: all, anchors: {keep: 1}")
    with pytest.raises(PrincipleWithoutDataError, match="'keep'"):
        survey(constitution(anchored, KEEP), tmp_path)
    survey(constitution(trained("a"), KEEP), tmp_path)


def test_evaluation_without_heldout_rows(tmp_path):
    write(tmp_path, one=[A], h=[B])
    found = constitution(trained("a", EVALUATED))
    with pytest.raises(PrincipleWithoutDataError, match=r"held-out rows in h\.jsonl"):
        survey(found, tmp_path)


def test_heldout_rows_are_not_for_training(tmp_path):
    write(tmp_path, h=[A])
    with pytest.raises(PrincipleWithoutDataError, match="rows to train"):
        survey(constitution(trained("a", EVALUATED)), tmp_path)


def test_unknown_principle_is_named_with_its_line(tmp_path):
    write(tmp_path, one=[A, A, {"principle": "nobody"}])
    with pytest.raises(UnknownPrincipleError, match=r"one\.jsonl, line 3: .*'nobody'"):
        survey(constitution(trained("a")), tmp_path)


def test_ambiguous_row_is_named_with_its_line(tmp_path):
    write(tmp_path, one=[A, B])
    found = constitution(data("{files: [one.jsonl]}"), trained("b"))
    with pytest.raises(AmbiguousRowError, match=r"one\.jsonl, line 2"):
        survey(found, tmp_path)


@pytest.mark.parametrize(
    "content", ["[]\n", "{\n", '{"a": 1, "a": 2}\n', "\n", '{"a": NaN}\n', "\xff"]
)
def test_line_that_is_no_object(tmp_path, content):
    (tmp_path / "one.jsonl").write_text('{"principle": "a"}\n' + content, "latin-1")
    with pytest.raises(ConfigurationError, match=r"one\.jsonl, line 2") as caught:
        survey(constitution(trained("a")), tmp_path)
    assert caught.value.hint


@pytest.mark.parametrize("selector", ["{files: [none.jsonl]}", "{files: [folder]}"])
def test_file_that_cannot_be_read(tmp_path, selector):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        survey(constitution(data(selector)), tmp_path)


def test_no_directory(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        survey(constitution(trained("a")), tmp_path / "nowhere")
