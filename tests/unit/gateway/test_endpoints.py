import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.endpoints import ENDPOINTS, Treatment, refusal
from gateway.errors import DeniedEndpointError, UnknownEndpointError


def test_each_row_once():
    assert len({(row.method, row.path) for row in ENDPOINTS}) == len(ENDPOINTS)


def test_every_attested_row_has_a_dialect():
    for row in ENDPOINTS:
        assert row.dialect is not None or row.treatment is Treatment.PASSED


@pytest.mark.parametrize("row", ENDPOINTS)
def test_no_served_path_is_denied_by_name(row):
    assert isinstance(refusal(row.path), UnknownEndpointError)


@pytest.mark.parametrize(
    "path",
    [
        "/sleep",
        "/v1/load_lora_adapter",
        "/SLEEP;x",
        "/a/%2573leep",
        "/a\\pause",
        "//resume/",
    ],
)
def test_denied(path):
    error = refusal(path)
    assert isinstance(error, DeniedEndpointError)
    assert error.status == 403


@pytest.mark.parametrize("path", ["/", "/sleeping", "/v2/embed", "/x?sleep", "%"])
def test_unknown(path):
    error = refusal(path)
    assert isinstance(error, UnknownEndpointError)
    assert error.status == 404


@given(st.text(max_size=50))
def test_any_path_gets_an_error_that_does_not_quote_it(path):
    error = refusal("/" + path + "/zzzz-not-quoted")
    assert "zzzz" not in str(error) + error.hint
