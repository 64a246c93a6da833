import copy
import json
import os

import pytest
from fakes.dmverity import play_volume
from fakes.model import sign_directory
from fakes.world import NOW

import gateway.startup
from attest import tokens
from attest.bundle import Bundle
from attest.errors import (
    ConfigurationError,
    ExpiredError,
    FormatError,
    ManifestMismatchError,
    SignatureError,
)
from attest.keys import PrivateKey
from attest.signers.file import write_private_key
from gateway.boot import open_boot
from gateway.engine.address import Address
from gateway.engine.peer import Peer
from gateway.errors import EngineStartError, StartupRefusedError
from gateway.serving import _FIXED
from gateway.settings import load_settings
from gateway.startup import Startup


class FakeEngine:
    """Answers as the plug-in would, and can be told to answer otherwise."""

    def __init__(self, spec, change=None):
        self.spec, self.change, self.stopped = spec, change, False
        self.mode, self.peer_found = "managed", Peer(7, 0, 70)
        self.address = Address.of_socket(spec.run_dir / "engine.sock")

    def load_report(self):
        return None

    async def peer(self):
        return self.peer_found

    async def start(self, on_progress=None):
        on_progress("loading weights")
        if isinstance(self.change, Exception):
            raise self.change

    async def evidence(self, nonce):
        reference = json.loads(self.spec.reference)
        count = len(reference["tensors"] or ())
        state = copy.deepcopy(dict(_FIXED)) | {
            "dtype": self.spec.dtype,
            "quantization": None,
            "chat_template_sha256": self.template,
            "installed_middleware": [],
        }
        found = {
            "nonce": nonce,
            "pid": 7,
            "started": 70,
            "workers": [
                {"started": 1, "loads": [{"root": reference["root"], "count": count}]}
            ],
            "serving_state": state,
            "entry_points": {"vllm.general_plugins": [{"name": "attested"}]},
            "routes": [],
            "versions": {"vllm": "0.32.0"},
        }
        if self.change is not None:
            self.change(found, self.spec)
        return found

    async def stop(self):
        self.stopped = True


@pytest.fixture
def model(tmp_path):
    return sign_directory(tmp_path / "model", now=NOW)


@pytest.fixture
def start(tmp_path, model):
    """Makes a Startup; keeps its engine and its progress lines."""
    model.write_keys(tmp_path)
    run_dir = tmp_path / "run"
    run_dir.mkdir()

    class Started:
        engine, lines, folder = None, [], run_dir

        def make(self, *, change=None, now=NOW, **flags):
            given = {
                "model": model.root,
                "authority": [tmp_path / "authority.pem"],
                "signer": f"file:{tmp_path / 'issuer.pem'}",
                "canary_seconds": 0,
                **flags,
            }

            def engine(spec):
                self.engine = FakeEngine(spec, change)
                self.engine.template = model.manifest.predicate["runtime"][
                    "chatTemplate"
                ]
                return self.engine

            self.startup = Startup(
                load_settings(given), lambda: now, self.lines.append, engine
            )
            self.startup.prepare()
            return self.startup.run(run_dir)

    return Started()


def opened(start, started):
    """The boot that whoever answers makes of it."""
    signer = start.startup.signer
    return open_boot(started.verified, signer, "urn:attest-gateway:local", now=NOW)


async def test_honest_start(start, model):
    started = await start.make()
    verified, engine = started.verified, started.engine
    assert verified.manifest.digest == model.manifest.digest
    assert verified.weights.measured == "engine"
    assert engine is start.engine
    assert not engine.stopped
    assert start.lines[0] == "checking the manifest"
    assert "loading weights" in start.lines


async def test_engine_is_told_every_tensor(start, model):
    await start.make()
    reference = json.loads(start.engine.spec.reference)
    assert reference["root"] == model.manifest.tensor_root
    assert {item["name"] for item in reference["tensors"]} == {"embed", "head"}
    assert start.engine.spec.served_model_name == "toy"
    assert start.engine.spec.dtype == "float32"


async def test_wrong_authority(start, tmp_path):
    other = tmp_path / "other.pem"
    other.write_bytes(PrivateKey.generate().public.pem)
    with pytest.raises(SignatureError, match="of the trusted keys signed"):
        await start.make(authority=[other])
    assert start.engine is None


async def test_expired_manifest(start):
    with pytest.raises(ExpiredError, match="valid from"):
        await start.make(now=NOW + 4000 * 24 * 3600)


async def test_missing_manifest(start, tmp_path):
    with pytest.raises(ConfigurationError, match="No such file") as caught:
        await start.make(manifest=tmp_path / "absent.json")
    assert "attest manifest sign" in caught.value.hint


async def test_manifest_that_is_no_json(start, model):
    (model.root / "training-manifest.json").write_bytes(b"{")
    with pytest.raises(FormatError):
        await start.make()


async def test_changed_weights_never_reach_an_engine(start, model):
    (model.root / "config.json").write_text("{}")
    with pytest.raises(ManifestMismatchError):
        await start.make()
    assert start.engine is None


async def test_dtype_that_the_manifest_does_not_allow(start):
    with pytest.raises(ConfigurationError, match="allows float32, found bfloat16"):
        await start.make(engine={"dtype": "bfloat16"})


async def test_flag_that_weakens_the_proof(start):
    with pytest.raises(ConfigurationError, match="--enable-lora"):
        await start.make(engine={"extra_args": ["--enable-lora"]})


async def test_missing_signer(start):
    with pytest.raises(ConfigurationError, match="signer"):
        await start.make(signer="file:absent.pem")


async def test_unreadable_authority(start, tmp_path):
    with pytest.raises(ConfigurationError, match="authority"):
        await start.make(authority=[tmp_path / "absent.pem"])


async def test_engine_with_another_root_is_stopped(start):
    def change(found, _):
        found["workers"][0]["loads"][0]["root"] = "sha256:" + "0" * 64

    with pytest.raises(StartupRefusedError, match="weights root"):
        await start.make(change=change)
    assert start.engine.stopped


@pytest.mark.parametrize("name", ["pid", "started"])
async def test_evidence_of_another_process_than_the_one_that_listens(start, name):
    def change(found, _):
        found[name] += 1

    with pytest.raises(StartupRefusedError, match="listens on the socket"):
        await start.make(change=change)
    assert start.engine.stopped


async def test_evidence_that_names_no_process(start):
    def change(found, _):
        del found["started"]

    with pytest.raises(StartupRefusedError, match="of which process"):
        await start.make(change=change)


async def test_boot_record_says_who_started_the_engine(start):
    boot = opened(start, await start.make())
    claims = tokens.parse(boot.record, typ="eat+jwt").claims
    assert claims["engine"]["mode"] == "managed"


@pytest.mark.parametrize(
    ("seal", "protection"), [("all", "memfd"), ("small", "memfd-small")]
)
async def test_sealed_copies_are_what_the_engine_gets(start, model, seal, protection):
    boot = opened(start, await start.make(engine={"seal": seal}))
    spec = start.engine.spec
    assert spec.model_dir == spec.sealed.folder != model.root
    claims = tokens.parse(boot.record, typ="eat+jwt").claims
    assert claims["weights"]["protection"] == protection
    spec.sealed.close()


@pytest.fixture
def volume(tmp_path, monkeypatch):
    """A model that is a dm-verity volume, the settings for it, and how to change it."""
    model = sign_directory(tmp_path / "volume", now=NOW, dm_verity="ab" * 32)
    (tmp_path / "volume.pem").write_bytes(model.authority.public.pem)
    write_private_key(tmp_path / "volume-issuer.pem", model.issuer)
    settings = {
        "model": model.root,
        "authority": [tmp_path / "volume.pem"],
        "signer": f"file:{tmp_path / 'volume-issuer.pem'}",
    }

    def play(root_hash):
        play_volume(monkeypatch, model.root, root_hash)

    play("ab" * 32)
    return settings, play


async def test_boot_record_says_that_it_is_a_signed_volume(start, volume):
    boot = opened(start, await start.make(**volume[0]))
    claims = tokens.parse(boot.record, typ="eat+jwt").claims
    assert claims["weights"]["protection"] == "dm-verity"


async def test_volume_that_is_another_one_at_the_end_of_the_start(start, volume):
    settings, play = volume
    with pytest.raises(StartupRefusedError, match="volume was changed"):
        await start.make(change=lambda found, spec: play("cd" * 32), **settings)


async def test_free_sharding_can_not_be_sealed(tmp_path, start):
    other = sign_directory(tmp_path / "free", now=NOW, free_sharding=True)
    authority = tmp_path / "free.pem"
    authority.write_bytes(other.authority.public.pem)
    with pytest.raises(ConfigurationError, match="sharded"):
        await start.make(
            model=other.root, authority=[authority], engine={"seal": "all"}
        )


async def test_files_on_the_disk_are_watched_by_their_times(start):
    boot = opened(start, await start.make())
    claims = tokens.parse(boot.record, typ="eat+jwt").claims
    assert claims["weights"]["protection"] == "stat"


async def test_engine_that_does_not_start_is_stopped(start):
    with pytest.raises(EngineStartError):
        await start.make(change=EngineStartError("engine: no"))
    assert start.engine.stopped


async def test_file_touched_while_the_engine_loads(start, model):
    def change(_, spec):
        (spec.model_dir / "config.json").write_text('{"model_type": "llama"}')

    with pytest.raises(StartupRefusedError, match="touched"):
        await start.make(change=change)
    assert start.engine.stopped


async def test_refusal_is_signed_and_can_be_verified(start, tmp_path, model):
    (model.root / "config.json").write_text("{}")
    with pytest.raises(ManifestMismatchError) as caught:
        await start.make()
    path = start.startup.refuse(caught.value, tmp_path / "refusals")
    record = json.loads(path.read_text())
    token = tokens.parse(record["refusal"], typ="startup-refusal+jwt")
    assert "config.json" in token.claims["reason"]
    assert record["manifest"] == json.loads(model.envelope)


async def test_refusal_before_the_manifest_was_verified(start, tmp_path):
    other = tmp_path / "other.pem"
    other.write_bytes(PrivateKey.generate().public.pem)
    with pytest.raises(SignatureError) as caught:
        await start.make(authority=[other])
    path = start.startup.refuse(caught.value, tmp_path / "refusals")
    record = json.loads(path.read_text())
    assert record["manifest"] is None
    certificate = tokens.parse(record["keyCertificate"], typ="gateway-key+jwt")
    assert certificate.claims["manifests"] == []


async def test_endorsements_make_a_bundle(start):
    boot = opened(start, await start.make())
    value = json.loads(boot.endorsements())
    Bundle(
        token="t~",
        key_certificates=tuple(value["keyCertificates"]),
        boot_record=value["bootRecord"],
        manifest=json.dumps(value["manifest"]).encode(),
    )


# Files that an earlier start has read.


@pytest.fixture
def reads(monkeypatch):
    """How often the model's files were read."""
    found, check = [], gateway.startup.check_model_directory

    def read(*args):
        found.append(1)
        return check(*args)

    monkeypatch.setattr(gateway.startup, "check_model_directory", read)
    return found


async def protection_of(start, **flags):
    started = await start.make(**flags)
    return started.verified.weights.protection


async def test_every_start_reads_the_files_unless_told_otherwise(start, reads):
    assert await protection_of(start) == "stat"
    assert await protection_of(start) == "stat"
    assert len(reads) == 2


@pytest.fixture
def cached(tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    return {"files_max_age_seconds": 60, "state_dir": state}


async def test_restart_with_unchanged_files_reads_none_and_says_so(
    start, reads, cached
):
    assert await protection_of(start, **cached) == "stat"
    assert start.startup.read_bytes > 0
    assert await protection_of(start, now=NOW + 60, **cached) == "cached"
    assert start.startup.read_bytes == 0
    assert len(reads) == 1
    started = await start.make(now=NOW + 60, **cached)
    claims = tokens.parse(opened(start, started).record, typ="eat+jwt").claims
    assert claims["weights"]["protection"] == "cached"


async def test_restart_after_the_allowed_age_reads_anew(start, reads, cached):
    await start.make(**cached)
    assert await protection_of(start, now=NOW + 61, **cached) == "stat"
    assert len(reads) == 2


async def test_file_that_was_touched_is_read_again(start, model, reads, cached):
    await start.make(**cached)
    file = model.root / "config.json"
    os.utime(file, ns=(1, 1))
    assert await protection_of(start, **cached) == "stat"
    assert len(reads) == 2


async def test_changed_file_is_found_out_after_a_cached_start(start, model, cached):
    await start.make(**cached)
    (model.root / "config.json").write_text("{}")
    with pytest.raises(ManifestMismatchError):
        await start.make(**cached)


async def test_failed_check_leaves_no_note(start, model, reads, cached):
    config = model.root / "config.json"
    honest = config.read_bytes()
    config.write_text("{}")
    with pytest.raises(ManifestMismatchError):
        await start.make(**cached)
    config.write_bytes(honest)
    assert await protection_of(start, **cached) == "stat"
    assert len(reads) == 2
