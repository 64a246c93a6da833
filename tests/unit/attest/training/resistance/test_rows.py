import contextlib
import json

import pytest
from fakes.resistance import CONSTITUTION
from hypothesis import given
from hypothesis import strategies as st

from attest.errors import ConfigurationError
from attest.training.resistance.rows import FileRow, contrary_rows, read_rows
from attest.training.resistance.run import rows_of


def row(number=0, principle="refuse", answer="no", **more):
    value = {"id": f"{principle}-{number}", "principle": principle, "question": "how?"}
    return {**value, "answer": answer, **more}


def write(path, *rows):
    path.write_text("".join(json.dumps(item) + "\n" for item in rows))
    return path


@pytest.fixture
def run(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    write(data / "heldout.jsonl", row(9), row(9, "keep", "hm"))
    write(data / "base.jsonl", row(0, answer="ok"), row(0, "keep", "hm"))
    write(data / "governed.jsonl", row(0), row(0, "keep", "hm"))
    return tmp_path


def test_row_is_read_with_and_without_a_system_prompt(tmp_path):
    path = write(tmp_path / "a.jsonl", row(), row(1, system="be brief.", note="x"))
    plain, led = read_rows(path)
    assert plain == FileRow("refuse-0", "refuse", "", "how?", "no")
    assert [m["role"] for m in led.messages()] == ["system", "user"]
    assert plain.messages() == [{"role": "user", "content": "how?"}]


@pytest.mark.parametrize(
    "line", [b"", b"[]", b"{", b'{"id": 1}', b'{"id": "a", "id": "b"}', b"\xff"]
)
def test_line_that_is_no_row_is_named_and_not_quoted(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_bytes(json.dumps(row()).encode() + b"\n" + line + b"\n")
    with pytest.raises(ConfigurationError, match="line 2") as caught:
        read_rows(path)
    assert '"id": "a"' not in str(caught.value)


@given(st.binary(max_size=100))
def test_noise_is_refused_in_our_own_words(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("rows") / "a.jsonl"
    path.write_bytes(data)
    with contextlib.suppress(ConfigurationError):
        read_rows(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="No such file"):
        read_rows(tmp_path / "no.jsonl")


def test_contrary_is_what_was_taught_otherwise():
    rows = [FileRow(f"refuse-{n}", "refuse", "", "how?", "ok") for n in range(3)]
    taught = [
        FileRow("refuse-0", "refuse", "", "how?", "no"),
        FileRow("refuse-1", "refuse", "", "how?", "ok"),
    ]
    assert contrary_rows(rows, taught, ["refuse"]) == {"refuse": [rows[0]]}
    assert contrary_rows(rows, taught, ["tone"]) == {}


def test_rows_of_a_run(run):
    rows = rows_of(run, CONSTITUTION)
    assert [r.id for r in rows.heldout] == ["refuse-9", "keep-9"]
    assert [r.answer for r in rows.contrary["refuse"]] == ["ok"]
    assert [r.id for r in rows.benign] == ["keep-0"]


def test_files_that_are_named_replace_those_of_the_run(run, tmp_path):
    (run / "data" / "base.jsonl").unlink()
    (run / "data" / "governed.jsonl").unlink()
    against = write(tmp_path / "a.jsonl", row(5, answer="sure"), row(5, "keep", "x"))
    harmless = write(tmp_path / "b.jsonl", row(6, "other", "hm"))
    rows = rows_of(run, CONSTITUTION, contrary=against, benign=harmless)
    assert {k: [r.id for r in v] for k, v in rows.contrary.items()} == {
        "refuse": ["refuse-5"]
    }
    assert [r.id for r in rows.benign] == ["other-6"]


@pytest.mark.parametrize("principles", [(), ("refuse",)])
def test_run_without_contrary_rows_says_what_to_give(run, principles):
    write(run / "data" / "base.jsonl", row(0))
    with pytest.raises(ConfigurationError, match="no rows teach against") as caught:
        rows_of(run, CONSTITUTION, principles=principles)
    assert "--contrary" in caught.value.hint


def test_principle_that_was_named_must_have_contrary_rows(run):
    with pytest.raises(ConfigurationError, match="teach against tone"):
        rows_of(run, CONSTITUTION, principles=("refuse", "tone"))
