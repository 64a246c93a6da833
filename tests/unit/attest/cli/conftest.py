"""The command line in this process, a model directory, and evidence in files."""

import json
import shutil
import time

import pytest
from fakes.tiny_model import make_tiny_llama
from fakes.world import (
    ANSWER,
    REQUEST,
    STREAM,
    STREAM_REQUEST,
    make_world,
    with_comment,
)
from typer.testing import CliRunner

from attest.cli.main import app
from attest.keys import PrivateKey
from attest.signers.file import write_private_key


@pytest.fixture
def attest(monkeypatch):
    """Run `attest …`; the result has exit_code, stdout and stderr."""
    monkeypatch.delenv("ATTEST_DEBUG", raising=False)

    def run(*arguments, **options):
        return CliRunner().invoke(app, [str(item) for item in arguments], **options)

    return run


@pytest.fixture(scope="session")
def pristine_model(tmp_path_factory):
    return make_tiny_llama(tmp_path_factory.mktemp("pristine") / "model")


@pytest.fixture
def model(pristine_model, tmp_path):
    """A model directory to spoil."""
    return shutil.copytree(pristine_model, tmp_path / "model")


@pytest.fixture
def keys(tmp_path):
    """A folder with authority and issuer, private and public."""
    folder = tmp_path / "keys"
    folder.mkdir()
    for name in ("authority", "issuer"):
        key = PrivateKey.generate()
        write_private_key(folder / f"{name}.key.pem", key)
        (folder / f"{name}.pub.pem").write_bytes(key.public.pem)
    return folder


@pytest.fixture
def signed(attest, model, keys):
    """A model directory with a signed manifest in it."""
    arguments = ["--key", keys / "authority.key.pem", "--name", "m", "--version", "1"]
    result = attest("manifest", "sign", model, *arguments)
    assert result.exit_code == 0, result.stderr
    return model


@pytest.fixture(scope="session")
def today():
    """A signed world at the time of this machine's clock, which the command reads."""
    return make_world(now=int(time.time()))


@pytest.fixture
def evidence(today, tmp_path):
    """What a client kept of one plain and one streamed answer."""
    folder = tmp_path / "evidence"
    folder.mkdir()
    stream = with_comment(STREAM, today.token(STREAM_REQUEST, STREAM))
    files = {
        "authority.pub.pem": today.authority.public.pem,
        "other.pub.pem": PrivateKey.generate().public.pem,
        "token": today.token().encode() + b"\n",
        "endorsements.json": json.dumps(today.endorsements).encode(),
        "request": REQUEST,
        "response": ANSWER,
        "stream-request": STREAM_REQUEST,
        "stream": stream,
        "bundle.json": today.bundle().dumps(),
        "manifest.json": today.envelope,
        "boot": today.boot.encode(),
        "certificate": today.certificate.encode(),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder
