import stat

import pytest

from attest.errors import ConfigurationError
from attest.keys import Algorithm, PrivateKey
from attest.signers import load_signer
from attest.signers.file import load_file, write_private_key


@pytest.fixture
def path(tmp_path):
    return tmp_path / "issuer.key.pem"


@pytest.mark.parametrize("alg", list(Algorithm))
def test_what_was_written_is_loaded(path, alg):
    key = PrivateKey.generate(alg)
    write_private_key(path, key)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    signer = load_signer(f"file:{path}")
    assert signer.public == key.public
    signer.public.verify(signer.sign(b"x"), b"x")


def test_keys_are_never_overwritten(path):
    path.write_text("precious")
    with pytest.raises(ConfigurationError, match="not overwritten"):
        write_private_key(path, PrivateKey.generate())
    assert path.read_text() == "precious"


def test_where_nothing_can_be_written(tmp_path):
    with pytest.raises(ConfigurationError):
        write_private_key(tmp_path / "missing" / "key.pem", PrivateKey.generate())


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644, 0o666])
def test_a_key_that_is_open_to_everybody(path, mode):
    write_private_key(path, PrivateKey.generate())
    path.chmod(mode)
    with pytest.raises(ConfigurationError) as caught:
        load_file(str(path))
    assert f"chmod 600 {path}" in caught.value.hint


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o600, 0o640])
def test_group_access_is_what_kubernetes_gives(path, mode):
    write_private_key(path, PrivateKey.generate())
    path.chmod(mode)
    assert load_file(str(path))


def test_a_missing_key_is_never_made_up(path):
    with pytest.raises(ConfigurationError) as caught:
        load_signer(f"file:{path}")
    assert "attest keys new" in caught.value.hint
    assert not path.exists()


def test_a_directory(tmp_path):
    with pytest.raises(ConfigurationError):
        load_file(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"x", PrivateKey.generate().public.pem])
def test_a_file_that_holds_no_private_key(path, content):
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match=r"issuer\.key\.pem"):
        load_file(str(path))


@pytest.mark.parametrize("uri", ["", "issuer.key.pem", "vault:x", ":x", "FILE:x"])
def test_other_uris(uri):
    with pytest.raises(ConfigurationError) as caught:
        load_signer(uri)
    assert "file:" in str(caught.value)
    assert caught.value.hint
