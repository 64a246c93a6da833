import hashlib

import pytest

from attest.errors import ConfigurationError
from gateway.auth import ApiKeys
from gateway.errors import AuthenticationError

HEX = hashlib.sha256(b"secret").hexdigest()


def keys(tmp_path, text):
    path = tmp_path / "keys"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return ApiKeys.read(path)


@pytest.mark.parametrize("line", [HEX, f"sha256:{HEX}", f"  {HEX}\t", f"{HEX}\r"])
def test_key_in_the_file(tmp_path, line):
    found = keys(tmp_path, f"# ours\n\n{line}\n")
    found.check(b"Bearer secret")
    with pytest.raises(AuthenticationError):
        found.check(b"Bearer other")


def test_each_of_several_keys(tmp_path):
    other = hashlib.sha256(b"other").hexdigest()
    found = keys(tmp_path, f"{HEX}\n{other}\n")
    found.check(b"Bearer secret")
    found.check(b"Bearer other")


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"secret",
        b"Bearer",
        b"Bearer ",
        b"Basic secret",
        b"Bearer " + HEX.encode(),
    ],
)
def test_header_without_a_known_key(tmp_path, header):
    with pytest.raises(AuthenticationError, match="API key"):
        keys(tmp_path, HEX).check(header)


def test_without_a_file_the_gateway_is_open():
    ApiKeys.read(None).check(None)


@pytest.mark.parametrize("text", ["", "\n# none\n"])
def test_file_without_a_key_is_refused(tmp_path, text):
    with pytest.raises(ConfigurationError, match="holds no key"):
        keys(tmp_path, text)


@pytest.mark.parametrize(
    "line", ["secret", HEX.upper(), HEX[:-1], f"md5:{HEX}", b"\xff" * 64]
)
def test_line_that_is_no_digest_is_named_by_number(tmp_path, line):
    raw = line if isinstance(line, bytes) else line.encode()
    with pytest.raises(ConfigurationError, match="line 2 is not") as caught:
        keys(tmp_path, HEX.encode() + b"\n" + raw)
    assert "secret" not in str(caught.value)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="No such file"):
        ApiKeys.read(tmp_path / "none")


def test_key_with_a_name(tmp_path):
    other = hashlib.sha256(b"other").hexdigest()
    found = keys(tmp_path, f"{HEX} team-a\n{other}\n")
    assert found.check(b"Bearer secret") == "team-a"
    assert found.check(b"Bearer other") == other[:8]


@pytest.mark.parametrize("name", ["a b", "ü", "x" * 65, "a/b"])
def test_names_that_would_spoil_a_log(tmp_path, name):
    with pytest.raises(ConfigurationError, match="line 1") as caught:
        keys(tmp_path, f"{HEX} {name}")
    assert HEX not in str(caught.value)


def test_name_given_twice(tmp_path):
    other = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(ConfigurationError, match="line 2 gives a name again"):
        keys(tmp_path, f"{HEX} a\n{other} a\n")
