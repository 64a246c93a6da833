import json
import stat

import pytest

from attest.cli.keys import public_path
from attest.keys import PrivateKey, PublicKey


@pytest.mark.parametrize(
    ("private", "public"),
    [
        ("authority.key.pem", "authority.pub.pem"),
        ("authority.pem", "authority.pub.pem"),
        ("authority.key", "authority.pub.pem"),
        ("authority", "authority.pub.pem"),
        ("a.b.pem", "a.b.pub.pem"),
    ],
)
def test_public_key_stands_beside_the_private_one(tmp_path, private, public):
    assert public_path(tmp_path / private) == tmp_path / public


@pytest.mark.parametrize("alg", ["EdDSA", "ES256"])
def test_new_makes_a_pair(attest, tmp_path, alg):
    path = tmp_path / "a.key.pem"
    result = attest("keys", "new", path, "--alg", alg, "--format", "json")
    assert result.exit_code == 0
    said = json.loads(result.stdout)
    private = PrivateKey.from_pem(path.read_bytes())
    public = PublicKey.from_bytes((tmp_path / "a.pub.pem").read_bytes())
    assert private.public == public
    assert said["thumbprint"] == public.thumbprint
    assert said["alg"] == alg == public.alg
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("existing", ["a.key.pem", "a.pub.pem"])
def test_new_overwrites_nothing(attest, tmp_path, existing):
    (tmp_path / existing).write_bytes(b"precious")
    result = attest("keys", "new", tmp_path / "a.key.pem")
    assert result.exit_code == 4
    assert existing in result.stderr
    assert "hint:" in result.stderr
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"precious"]


def test_new_in_a_missing_folder_is_refused(attest, tmp_path):
    result = attest("keys", "new", tmp_path / "nowhere" / "a.pem")
    assert result.exit_code == 4
    assert "No such file" in result.stderr


def test_unknown_algorithm_is_usage(attest, tmp_path):
    assert attest("keys", "new", tmp_path / "a.pem", "--alg", "RS256").exit_code == 2
    assert not list(tmp_path.iterdir())


def test_show_never_shows_the_private_part(attest, keys):
    path = keys / "authority.key.pem"
    result = attest("keys", "show", path)
    assert result.exit_code == 0
    secret = path.read_text().splitlines()[1]
    assert secret not in result.output
    assert PrivateKey.from_pem(path.read_bytes()).public.thumbprint in result.stdout


def test_show_reads_both_halves_and_stdin_alike(attest, keys):
    shown = [
        json.loads(attest("keys", "show", keys / name, "--format", "json").stdout)
        for name in ("authority.key.pem", "authority.pub.pem")
    ]
    public = (keys / "authority.pub.pem").read_bytes()
    piped = attest("keys", "show", "-", "--format", "json", input=public)
    assert [item.pop("private") for item in shown] == [True, False]
    assert shown[0] == shown[1]
    assert json.loads(piped.stdout)["jwk"] == shown[1]["jwk"]
    assert shown[0]["pem"].encode() == public


def test_show_reads_a_jwk(attest, tmp_path):
    key = PrivateKey.generate().public
    (tmp_path / "key.jwk").write_text(json.dumps(key.jwk))
    result = attest("keys", "show", tmp_path / "key.jwk")
    assert key.thumbprint in result.stdout


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"],
)
def test_show_of_something_else_is_configuration(attest, tmp_path, content):
    (tmp_path / "key").write_bytes(content)
    result = attest("keys", "show", tmp_path / "key")
    assert result.exit_code == 4
    assert "key:" in result.stderr


def test_private_jwk_is_refused_and_not_echoed(attest, tmp_path):
    secret = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"
    jwk = PrivateKey.generate().public.jwk | {"d": secret}
    (tmp_path / "key.jwk").write_text(json.dumps(jwk))
    result = attest("keys", "show", tmp_path / "key.jwk")
    assert result.exit_code == 4
    assert secret not in result.output


def test_file_that_is_far_too_large_is_refused(attest, tmp_path):
    (tmp_path / "key").write_bytes(bytes(1024 * 1024 + 1))
    result = attest("keys", "show", tmp_path / "key")
    assert result.exit_code == 4
    assert "more than 1048576 bytes" in result.stderr


def test_public_half_of_a_signer(attest, tmp_path):
    private = tmp_path / "issuer.key.pem"
    attest("keys", "new", private)
    of_file = attest("keys", "show", private, "--format", "json")
    of_uri = attest("keys", "show", f"file:{private}", "--format", "json")
    assert of_uri.exit_code == 0
    assert json.loads(of_uri.stdout) == json.loads(of_file.stdout)
