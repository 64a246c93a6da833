import contextlib
import json

import pytest
from fakes.profiled import measurement
from hypothesis import given
from hypothesis import strategies as st

from attest.digests import digest
from attest.errors import (
    AttestError,
    ConfigurationError,
    FormatError,
    UnsupportedVersionError,
)
from attest.training.profile import document
from attest.training.profile.document import load_profile, parse_profile, write_profile


@pytest.fixture
def path(tmp_path):
    return tmp_path / "profile.json"


@pytest.fixture
def written(path):
    write_profile(path, measurement())
    return json.loads(path.read_bytes())


def parsed(value):
    return parse_profile(json.dumps(value).encode())


def test_what_is_written_is_read(path):
    made = measurement()
    assert write_profile(path, made) == digest(path.read_bytes())
    assert load_profile(path) == made
    assert load_profile(path).profile("a") == made.profile("a")


def test_a_run_without_seed(path):
    write_profile(path, measurement(seed=None))
    assert load_profile(path).seed is None


def test_events_that_make_it_too_large_are_left_out(path, monkeypatch):
    write_profile(path, measurement())
    monkeypatch.setattr(document, "MAX_BYTES", path.stat().st_size - 10)
    write_profile(path, measurement())
    assert load_profile(path) == measurement(events=())


def test_no_such_file(path):
    with pytest.raises(ConfigurationError, match=r"profile\.json: No such file"):
        load_profile(path)


@pytest.mark.parametrize("name", ["schema", "method"])
def test_another_version_asks_for_an_upgrade(written, name):
    with pytest.raises(UnsupportedVersionError):
        parsed({**written, name: "other/9"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stage", ""),
        ("seed", -(10**16)),
        ("every", 0),
        ("steps", True),
        ("blocks", 3),
        ("blocks", 10**9),
        ("units", ["L01", "L00", "head"]),
        ("units", ["L00", "L01", "tail"]),
        ("allocations", []),
        ("curve", [[4, {"a": 1, "b": 1}], [0, {"a": 1, "b": 1}]]),
        ("curve", [[0, {"a": 1}]]),
        ("curve", [[9, {"a": 1, "b": 1}]]),
        ("events", [[0, "a", {"c": {}}]]),
        ("events", [[0, "a", {"a": {"stem": 1}}]]),
        ("events", [[0, "a", {"a": {"L00": 0.5}}]]),
        ("events", [[4, "a", {}]]),
        ("events", [[1, "a", {}], [1, "a", {}]]),
        ("events", [[0, "a", {}]] * 5),
        ("exchanges", {"c": {"restore": [0, 0, 0], "insert": [0, 0, 0]}}),
        ("exchanges", {"a": {"restore": [0, 0], "insert": [0, 0, 0]}}),
        ("extra", 1),
    ],
)
def test_another_form_is_refused(written, name, value):
    with pytest.raises(FormatError):
        parsed({**written, name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("principle", "b"),
        ("band", [2]),
        ("band", [1, 0]),
        ("probe", "sha256:1"),
        ("rows", 0),
        ("weights", [0, 20]),
        ("weights", []),
        ("before", [1]),
        ("after", [1.5, 2]),
        ("amounts", {}),
        ("amounts", {"a": [[1, 2, 3]]}),
        ("amounts", {"a": [[1, 2], [1, 2]]}),
    ],
)
def test_another_form_of_an_allocation_is_refused(written, name, value):
    written["allocations"][0][name] = value
    with pytest.raises(FormatError):
        parsed(written)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@given(st.sampled_from(sorted(document._document(measurement()))), json_values)
def test_no_value_breaks_the_reader(name, value):
    with contextlib.suppress(AttestError):
        parsed({**document._document(measurement()), name: value})


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(data):
    with pytest.raises((FormatError, UnsupportedVersionError)):
        parse_profile(data)
