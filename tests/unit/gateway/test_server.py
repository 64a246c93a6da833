import asyncio
import json
import socket
import sqlite3
import sys
import time
import venv

import httpx2
import pytest
from fakes.gateway import eventually
from fakes.model import sign_directory
from typer.testing import CliRunner

from attest import __version__
from attest.errors import ConfigurationError, ManifestMismatchError
from attest.keys import PrivateKey
from attest.log.checkpoint import parse_checkpoint
from attest.log.note import KeyKind, NoteSigner
from attest.signers.file import write_private_key
from gateway.cli import app
from gateway.server import _Process, serve
from gateway.settings import load_settings


@pytest.fixture
def site(tmp_path):
    model = sign_directory(tmp_path / "model", now=int(time.time()))
    model.write_keys(tmp_path)
    return tmp_path


@pytest.fixture
def flags(site):
    return {
        "model": site / "model",
        "authority": [site / "authority.pem"],
        "signer": f"file:{site / 'issuer.pem'}",
        "state_dir": site / "state",
        "port": 0,
    }


@pytest.fixture
def run(flags):
    """Runs `attest-gateway serve` with changed flags."""

    def _run(**changes):
        arguments = ["serve"]
        for name, value in {**flags, **changes}.items():
            for item in value if isinstance(value, list) else [value]:
                arguments += [f"--{name.replace('_', '-')}", str(item)]
        return CliRunner().invoke(app, arguments)

    return _run


def refusals(site):
    return list((site / "state" / "refusals").glob("refusal-*.json"))


def test_changed_weights_exit_1_and_leave_a_signed_refusal(site, run):
    (site / "model" / "config.json").write_text("{}")
    done = run()
    assert done.exit_code == 1
    assert "changed: config.json" in done.stderr
    assert "hint: " in done.stderr
    assert len(refusals(site)) == 1


def test_library_call_raises_the_same(site, flags):
    (site / "model" / "config.json").write_text("{}")
    with pytest.raises(ManifestMismatchError):
        serve(load_settings(flags))
    assert len(refusals(site)) == 1


def test_wrong_authority_exit_1(site, run):
    other = site / "other.pem"
    other.write_bytes(PrivateKey.generate().public.pem)
    done = run(authority=[other])
    assert done.exit_code == 1
    assert "check that this is the authority's public key" in done.stderr
    assert len(refusals(site)) == 1


def test_missing_manifest_exit_4(site, run):
    (site / "model" / "training-manifest.json").unlink()
    done = run()
    assert done.exit_code == 4
    assert "attest manifest sign" in done.stderr


def test_engine_that_is_not_installed_exit_4(site, run):
    bare = site / "bare"
    venv.create(bare, with_pip=False)
    done = run(engine_python=bare / "bin" / "python")
    assert done.exit_code == 4
    assert "attest-gateway[vllm" in done.stderr


def test_port_in_use_exit_4(run):
    with socket.create_server(("127.0.0.1", 0)) as busy:
        done = run(port=busy.getsockname()[1])
    assert done.exit_code == 4
    assert "Address already in use" in done.stderr


def test_state_directory_that_cannot_be_made_exit_4(site, run):
    (site / "file").write_text("")
    done = run(state_dir=site / "file" / "state")
    assert done.exit_code == 4
    assert "--state-dir" in done.stderr


def test_state_directory_that_cannot_be_written(site, flags, monkeypatch):
    # Root may write everywhere, so the kernel's answer is played.
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(ConfigurationError, match="Permission denied"):
        serve(load_settings(flags))


def test_open_private_key_exit_4(site, run):
    (site / "issuer.pem").chmod(0o644)
    done = run()
    assert done.exit_code == 4
    assert "chmod 600" in done.stderr


def test_missing_settings_exit_4():
    done = CliRunner().invoke(app, ["serve"])
    assert done.exit_code == 4
    assert "authority: Field required" in done.stderr


def test_interpreter_that_is_not_there_exit_4(site, run):
    done = run(engine_python=site / "absent")
    assert done.exit_code == 4


def test_key_never_shows(site, run):
    (site / "model" / "config.json").write_text("{}")
    done = run()
    secret = (site / "issuer.pem").read_text().splitlines()[1]
    assert secret not in done.output + done.stderr
    assert all(secret not in path.read_text() for path in refusals(site))


def test_version():
    assert __version__ in CliRunner().invoke(app, ["version"]).output
    assert sys.version_info >= (3, 11)


@pytest.fixture
def log_key(site):
    path = site / "log.key.pem"
    write_private_key(path, PrivateKey.generate())
    return path


def test_refusal_is_a_record_of_the_log(site, run, log_key):
    (site / "model" / "config.json").write_text("{}")
    assert run(log_key=log_key).exit_code == 1
    (refusal,) = refusals(site)
    token = json.loads(refusal.read_bytes())["refusal"]
    with sqlite3.connect(site / "state" / "attestations.sqlite") as database:
        rows = database.execute("SELECT record FROM log_leaves").fetchall()
    database.close()
    assert rows == [(token,)]
    head, _ = parse_checkpoint((site / "state" / "log-checkpoint").read_bytes())
    assert (head.origin, head.size) == ("urn:attest-gateway:local", 1)


def test_log_that_the_manifest_does_not_name_is_refused(site, run, log_key):
    other = NoteSigner("other", KeyKind.LOG, PrivateKey.generate()).key
    model = sign_directory(site / "named", now=int(time.time()), logs=[other])
    write_private_key(site / "named.pem", model.issuer)
    (site / "authority.pem").write_bytes(model.authority.public.pem)
    done = run(
        model=site / "named", signer=f"file:{site / 'named.pem'}", log_key=log_key
    )
    assert done.exit_code == 1
    assert "the manifest names other logs" in done.stderr


def test_damaged_log_is_refused_and_signed(site, run, log_key):
    (site / "model" / "config.json").write_text("{}")
    run(log_key=log_key)
    run(log_key=log_key)
    with sqlite3.connect(site / "state" / "attestations.sqlite") as database:
        database.execute("DELETE FROM log_leaves WHERE idx = 1")
    database.close()
    done = run(log_key=log_key)
    assert done.exit_code == 1
    assert "1 entries, 2 were signed" in done.stderr
    assert len(refusals(site)) == 3


def test_log_key_that_is_none_exit_4(site, run):
    done = run(log_key=site / "authority.pem")
    assert done.exit_code == 4
    assert "attest keys new" in done.stderr


def test_metrics_port_in_use(flags):
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"metrics_port: .*:{port}: Addr"):
            serve(load_settings({**flags, "metrics_port": port}))


async def test_metrics_are_served_while_the_engine_is_waited_for(flags, site):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    upstream = f"unix:{site / 'absent.sock'}"
    settings = load_settings({**flags, "upstream": upstream, "metrics_port": port})
    process = _Process(settings)
    running = asyncio.create_task(process.run())
    await eventually(lambda: process._state.may_load)
    async with httpx2.AsyncClient(trust_env=False) as client:
        page = await client.get(f"http://127.0.0.1:{port}/metrics")
    process._stop()
    assert await running == 0
    assert "attest_gateway_ready 0.0\n" in page.text
    for what in ("duration_seconds", "bytes"):
        name = f"attest_gateway_weights_verification_{what}"
        assert float(page.text.partition(f"\n{name} ")[2].partition("\n")[0]) > 0
