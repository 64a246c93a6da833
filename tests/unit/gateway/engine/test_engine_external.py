"""An engine that somebody else started: what it proves, and when it is let go."""

import asyncio
import hashlib
import json
import os
import secrets
import socket

import pytest
from fakes.model import sign_directory
from fakes.routed_engine import RoutedEngine, honest_evidence
from fakes.world import NOW

from attest import tokens
from attest.errors import ConfigurationError, ManifestMismatchError
from attest.keys import PrivateKey
from gateway.boot import open_boot
from gateway.engine.address import Address
from gateway.engine.external import ExternalEngine, ExternalSpec
from gateway.engine.peer import start_time
from gateway.engine.reference import share_reference
from gateway.errors import EngineDiedError, EngineStartError, StartupRefusedError
from gateway.settings import load_settings
from gateway.startup import Startup


@pytest.fixture
def model(tmp_path):
    return sign_directory(tmp_path / "model", now=NOW)


@pytest.fixture
async def engine(tmp_path, model):
    engine = RoutedEngine(model.manifest)
    await engine.start(tmp_path / "e.sock")
    yield engine
    await engine.stop()


@pytest.fixture
def start(tmp_path, model):
    model.write_keys(tmp_path)

    async def run(**flags):
        given = {
            "model": model.root,
            "authority": [tmp_path / "authority.pem"],
            "signer": f"file:{tmp_path / 'issuer.pem'}",
            "upstream": f"unix:{tmp_path / 'e.sock'}",
            "engine": {"start_timeout_seconds": 5},
            **flags,
        }
        startup = Startup(load_settings(given), lambda: NOW, lambda _: None)
        startup.prepare()
        started = await startup.run(tmp_path / "run")
        await started.engine.stop()
        return started

    return run


def boot_claims(started):
    boot = open_boot(started.verified, PrivateKey.generate(), "gateway.test", now=NOW)
    return tokens.parse(boot.record, typ="eat+jwt").claims


async def test_plugin_gives_engine(start, engine):
    started = await start()
    claims = boot_claims(started)
    assert claims["weights"]["measured"] == "engine"
    assert claims["engine"]["mode"] == "external"
    assert started.finding.peer.pid == os.getpid()


async def test_no_plugin_gives_files_and_says_what_is_unknown(start, engine):
    engine.evidence = None
    claims = boot_claims(await start())
    assert claims["weights"]["measured"] == "files"
    assert claims["engine"] == {
        "name": "vllm",
        "version": "0.32.0",
        "dtype": "unknown",
        "mode": "external",
    }
    assert claims["serving_state"]["reported"] is False


async def test_no_model_directory_gives_asserted_and_was_verified_never(
    start, engine, model
):
    engine.evidence = None
    claims = boot_claims(
        await start(model=None, manifest=model.root / "training-manifest.json")
    )
    assert claims["weights"]["measured"] == "asserted"
    assert claims["weights"]["verified_at"] == 0


async def test_plugin_needs_no_model_directory_here(start, engine, model):
    started = await start(model=None, manifest=model.root / "training-manifest.json")
    assert boot_claims(started)["weights"]["measured"] == "engine"


async def test_other_weights_in_the_engine_are_a_no_not_a_weaker_yes(start, engine):
    engine.evidence["workers"][0]["loads"][0]["root"] = "sha256:" + "0" * 64
    with pytest.raises(StartupRefusedError, match="weights root"):
        await start()


async def test_other_weights_in_the_folder(start, engine, model):
    (model.root / "config.json").write_text("{}")
    with pytest.raises(ManifestMismatchError):
        await start()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda e: e.models[0].update(id="other"), "model: expected toy"),
        (lambda e: e.models.append({"id": "a", "parent": "toy"}), "adapters"),
        (lambda e: e.models[0].update(owned_by="ollama"), "kind"),
        (lambda e: e.exposed.add("/collective_rpc"), "bypass the weights"),
    ],
)
async def test_what_is_shown_without_the_plugin_must_fit(start, engine, change, match):
    engine.evidence = None
    change(engine)
    with pytest.raises(StartupRefusedError, match=match):
        await start()


async def test_dtype_may_be_any_that_the_manifest_allows(start, engine):
    engine.evidence["serving_state"]["dtype"] = "bfloat16"
    with pytest.raises(StartupRefusedError, match="dtype"):
        await start()
    with pytest.raises(ConfigurationError, match="allows float32"):
        await start(engine={"dtype": "bfloat16"})


async def test_nobody_serves(start):
    with pytest.raises(EngineStartError, match=r"nothing serves at unix:.*No such"):
        await start(engine={"start_timeout_seconds": 0.3})


@pytest.fixture
def unshared(tmp_path):
    """A path for a socket whose last part is no other process's on this machine."""
    return tmp_path / f"{secrets.token_hex(8)}.sock"


SOON = {"start_timeout_seconds": 0.5}


async def test_socket_that_a_killed_engine_left_is_removed(start, unshared):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(unshared))
    with pytest.raises(EngineStartError):
        await start(upstream=f"unix:{unshared}", engine=SOON)
    assert not unshared.exists()


async def test_socket_of_an_engine_that_still_loads_is_left_alone(start, unshared):
    """Bound, and not listened on: a connection is refused all the same."""
    with socket.socket(socket.AF_UNIX) as loading:
        loading.bind(str(unshared))
        with pytest.raises(EngineStartError):
            await start(upstream=f"unix:{unshared}", engine=SOON)
        assert unshared.exists()


async def test_engine_that_never_gets_ready_says_how_it_answers(start, engine):
    engine.health = 503
    with pytest.raises(EngineStartError, match="HTTP status 503"):
        await start(engine={"start_timeout_seconds": 0.3})


async def test_refusal_that_the_loader_left(start, tmp_path):
    async def refuse_later():
        await asyncio.sleep(0.3)
        refusal = {"reason": "another content", "tensor": "head"}
        (tmp_path / "refusal.json").write_text(json.dumps(refusal))

    task = asyncio.create_task(refuse_later())
    with pytest.raises(StartupRefusedError, match="another content head"):
        await start(reference_file=tmp_path / "reference.json")
    await task


# The load report: a file that counts only for the process that listens.


@pytest.fixture
def report(tmp_path, model, engine):
    reference, path = tmp_path / "reference.json", tmp_path / "report.json"
    sha256 = share_reference(reference, model.manifest)
    engine.evidence = None

    def write(**changes):
        evidence = honest_evidence(model.manifest, reference_sha256=sha256)
        path.write_text(json.dumps({"nonce": "", **evidence, **changes}))
        return {"reference_file": reference, "load_report": path}

    return write


async def test_report_of_the_process_that_listens_gives_engine(start, report):
    assert boot_claims(await start(**report()))["weights"]["measured"] == "engine"


async def test_report_is_awaited_nowhere_and_missing_gives_files(start, report):
    flags = report()
    flags["load_report"].unlink()
    assert boot_claims(await start(**flags))["weights"]["measured"] == "files"


@pytest.mark.parametrize(
    "changes",
    [
        {"pid": 1},
        {"started": start_time(os.getpid()) - 1},
        {"workers": []},
        {"workers": [{"loads": [{"reference_sha256": "0" * 64}]}]},
        {"workers": "x"},
    ],
)
async def test_report_of_another_process_or_reference_is_not_used(
    start, report, changes
):
    claims = boot_claims(await start(**report(**changes)))
    assert claims["weights"]["measured"] == "files"


async def test_report_about_other_weights_is_a_no(start, report, tmp_path):
    flags = report()
    value = json.loads(flags["load_report"].read_text())
    value["workers"][0]["loads"][0]["count"] = 1
    flags["load_report"].write_text(json.dumps(value))
    with pytest.raises(StartupRefusedError, match="weights count"):
        await start(**flags)


# The reference file.


def test_reference_stays_for_an_engine_that_outlives_the_gateway(tmp_path, model):
    path = tmp_path / "reference.json"
    first = share_reference(path, model.manifest)
    assert share_reference(path, model.manifest) == first
    assert hashlib.sha256(path.read_bytes()).hexdigest() == first
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("content", [b"{", b"{}", b'{"root":"x","nonce":"n"}'])
def test_reference_that_says_otherwise_is_replaced(tmp_path, model, content):
    path = tmp_path / "reference.json"
    path.write_bytes(content)
    share_reference(path, model.manifest)
    assert json.loads(path.read_bytes())["root"] == model.manifest.tensor_root


def test_each_reference_is_another(tmp_path, model):
    paths = [tmp_path / name for name in ("a.json", "b.json")]
    assert len({share_reference(path, model.manifest) for path in paths}) == 2


def test_folder_of_the_reference_is_missing(tmp_path, model):
    with pytest.raises(ConfigurationError, match="reference_file"):
        share_reference(tmp_path / "absent" / "reference.json", model.manifest)


# The held connection.


async def test_end_of_the_engine_is_noticed_at_once(tmp_path, engine):
    external = ExternalEngine(
        ExternalSpec(address=Address.of_socket(tmp_path / "e.sock"))
    )
    with pytest.raises(EngineDiedError, match="not started"):
        await external.wait()
    await external.start()
    ended = asyncio.create_task(external.wait())
    await asyncio.sleep(0)
    assert not ended.done()
    await engine.stop()
    assert await asyncio.wait_for(ended, 5) == 0
    with pytest.raises(EngineDiedError):
        await external.evidence("A" * 16)
    await external.stop()


async def test_over_tcp(model):
    engine = RoutedEngine(model.manifest)
    server = await asyncio.start_server(engine._serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    external = ExternalEngine(
        ExternalSpec(address=Address.parse(f"http://127.0.0.1:{port}"))
    )
    await external.start()
    assert await external.peer() is None
    assert (await external.evidence("A" * 16))["nonce"] == "A" * 16
    await external.stop()
    server.close()
    for task in list(engine._tasks):
        task.cancel()
    await server.wait_closed()


async def test_loading_engine_is_waited_for(tmp_path, engine):
    engine.health = 503
    external = ExternalEngine(
        ExternalSpec(address=Address.of_socket(tmp_path / "e.sock"))
    )
    starting = asyncio.create_task(external.start())
    while not engine.requests:  # noqa: ASYNC110  # there is no event to wait for
        await asyncio.sleep(0.01)
    engine.health = 200
    await asyncio.wait_for(starting, 5)
    await external.stop()
