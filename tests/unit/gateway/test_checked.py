import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.checked import _FILE, Checked

NOTE = Checked("sha256:m", "sha256:f", 1000)


def test_note_is_read_back(tmp_path):
    NOTE.keep(tmp_path)
    assert Checked.last(tmp_path) == NOTE


def test_without_a_note_nothing_is_known(tmp_path):
    assert Checked.last(tmp_path) is None


@given(st.binary(max_size=200) | st.recursive(st.text() | st.integers(), st.lists))
def test_note_that_is_none_of_ours_is_nothing(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("state")
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    (folder / _FILE).write_bytes(data)
    assert Checked.last(folder) is None


@pytest.mark.parametrize("at", ["1000", 1000.5, None])
def test_note_with_another_kind_of_time_is_nothing(tmp_path, at):
    value = {"manifest": "sha256:m", "fingerprint": "sha256:f", "at": at}
    (tmp_path / _FILE).write_text(json.dumps(value))
    assert Checked.last(tmp_path) is None


def test_folder_that_takes_no_note_is_no_failure(tmp_path):
    NOTE.keep(tmp_path / "absent")
    assert Checked.last(tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("manifest", "fingerprint", "now", "covered"),
    [
        ("sha256:m", "sha256:f", 1000, True),
        ("sha256:m", "sha256:f", 1060, True),
        ("sha256:m", "sha256:f", 1061, False),
        ("sha256:m", "sha256:f", 999, False),  # the clock went back
        ("sha256:m", "sha256:g", 1000, False),
        ("sha256:n", "sha256:f", 1000, False),
    ],
)
def test_only_the_same_files_within_their_age_are_covered(
    manifest, fingerprint, now, covered
):
    assert NOTE.covers(manifest, fingerprint, now=now, max_age=60) is covered
