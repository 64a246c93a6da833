"""Each change after the start is seen at the next look."""

import asyncio
import os
from dataclasses import replace

import pytest
from fakes.model import sign_directory
from fakes.routed_engine import RoutedEngine
from fakes.world import NOW

from attest.claims import Measured
from attest.errors import FormatError
from attest.hashing import scan_model, stat_fingerprint
from gateway.baseline import Baseline
from gateway.canary import ask_canary
from gateway.engine.address import Address
from gateway.engine.client import EngineClient
from gateway.engine.external import ExternalEngine, ExternalSpec
from gateway.errors import EngineDiedError
from gateway.examine import Examination
from gateway.live import live_digest
from gateway.watch import Changed, Watch


@pytest.fixture
def model(tmp_path):
    return sign_directory(tmp_path / "model", now=NOW)


@pytest.fixture
async def engine(tmp_path, model):
    engine = RoutedEngine(model.manifest)
    await engine.start(tmp_path / "e.sock")
    yield engine
    await engine.stop()


class Site:
    """A watch over the engine, and the times at which it found all well."""

    def __init__(self, watch):
        self.watch = watch
        self.verified = watch.verified = []
        watch.on_verified = self.verified.append

    async def change(self):
        return (await self.watch.look()).what


@pytest.fixture
async def site(tmp_path, model, engine):
    address = Address.of_socket(tmp_path / "e.sock")
    examination = Examination(
        engine=ExternalEngine(ExternalSpec(address=address)),
        manifest=model.manifest,
        served_model_name="toy",
    )
    return Site(
        Watch(
            examination=examination,
            finding=await examination.run(),
            baseline=Baseline(
                await ask_canary(EngineClient(address), "toy"),
                await live_digest(EngineClient(address)),
            ),
            model=model.root,
            files=stat_fingerprint(scan_model(model.root)),
            recheck_seconds=1,
            canary_seconds=1,
            live_weights_seconds=1,
            clock=lambda: NOW + 7.5,
            on_verified=lambda _: None,
        )
    )


async def test_nothing_changed(site):
    assert await site.watch.look() is None
    assert site.verified == [NOW + 7]


async def test_file_written_to(site, model):
    (model.root / "config.json").write_text('{"model_type": "Llama"}')
    assert await site.change() is Changed.FILES
    assert not site.verified


async def test_file_added(site, model):
    (model.root / "modeling.py").write_text("")
    assert await site.change() is Changed.FILES


async def test_directory_gone(site, model):
    model.root.rename(model.root.with_name("gone"))
    assert await site.change() is Changed.FILES


async def test_touched_file_is_read_again_and_is_still_good(site, model):
    os.utime(model.root / "config.json")
    before = site.watch.files
    assert await site.watch.look() is None
    assert site.watch.files != before
    assert site.verified


async def test_shard_swapped_by_rename(site, model, tmp_path):
    other = tmp_path / "other.safetensors"
    data = bytearray((model.root / "model.safetensors").read_bytes())
    data[-1] ^= 1
    other.write_bytes(data)
    other.rename(model.root / "model.safetensors")
    assert await site.change() is Changed.FILES


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e["workers"][0].update(started=2),
        lambda e: e["workers"][0]["loads"][0].update(root="sha256:" + "0" * 64),
        lambda e: e["serving_state"].update(lora={"max_loras": 1}),
        lambda e: e["serving_state"].update(seed=7),
        lambda e: e["versions"].update(vllm="0.33.0"),
        lambda e: e["routes"].append("POST /collective_rpc"),
        lambda e: e["entry_points"].update({"vllm.logits_processors": [{"dist": "x"}]}),
    ],
)
async def test_engine_reports_otherwise(site, engine, change):
    change(engine.evidence)
    assert await site.change() is Changed.STATE
    assert not site.verified


async def test_plugin_gone(site, engine):
    engine.evidence = None
    assert await site.change() is Changed.STATE


@pytest.mark.parametrize("name", ["peer", "process"])
async def test_another_process(site, name):
    """The finding of the start is altered: a process can't be, here."""
    found = site.watch.finding
    other = {
        "peer": replace(found.peer, started=found.peer.started - 1),
        "process": (found.process[0], found.process[1] - 1),
    }
    site.watch.finding = replace(found, **{name: other[name]})
    assert await site.change() is Changed.ENGINE


async def test_canary_answers_otherwise(site, engine):
    engine.text = "goodbye"
    assert await site.change() is Changed.CANARY


async def test_canary_has_its_own_timer(site, engine):
    engine.text = "goodbye"
    site.watch._canary_due = 5
    assert await site.watch.look() is None
    site.watch._canary_due = 0
    assert await site.change() is Changed.CANARY


async def test_canary_that_rounding_changed_once_is_asked_again(site, engine):
    honest, asked = engine._v1_completions, []

    def rounded(request):
        asked.append(request)
        engine.text = "hellp" if len(asked) <= 3 else "hello"
        return honest(request)

    engine._v1_completions = rounded
    assert await site.watch.look() is None


async def test_engine_that_cannot_be_seen_three_times(site, engine):
    await engine.stop()
    assert await site.watch.look() is None
    assert await site.watch.look() is None
    assert await site.change() is Changed.ENGINE
    assert not site.verified


async def test_asserted_is_never_verified(site, engine):
    engine.evidence = None
    site.watch.examination = replace(site.watch.examination, files_checked=False)
    site.watch.finding = await site.watch.examination.run()
    assert site.watch.finding.measured is Measured.ASSERTED
    assert await site.watch.look() is None
    assert not site.verified


async def test_run_looks_until_something_changed(site, engine, monkeypatch):
    looks, real, me = [], asyncio.sleep, asyncio.current_task()

    async def sleep(seconds):
        if asyncio.current_task() is not me:  # a server of another test that ends
            return await real(seconds)
        looks.append(seconds)
        if len(looks) == 3:
            engine.evidence = None
        return None

    monkeypatch.setattr("gateway.watch.asyncio.sleep", sleep)
    assert (await site.watch.run()).what is Changed.STATE
    assert looks == [1, 1, 1]
    assert len(site.verified) == 2


async def test_memory_holds_other_weights(site, engine):
    engine.resident = [{"sound": True, "sha256": "1" * 64}]
    assert await site.change() is Changed.LIVE


async def test_memory_is_hashed_on_its_own_timer(site, engine):
    engine.resident = [{"sound": True, "sha256": "1" * 64}]
    site.watch._live_due = 5
    assert await site.watch.look() is None


# The weights in memory by themselves.


async def test_live_digest_where_parameters_do_not_serve(tmp_path, engine):
    client = EngineClient(Address.of_socket(tmp_path / "e.sock"))
    engine.resident.append({"sound": False, "sha256": ""})
    assert await live_digest(client) is None


@pytest.mark.parametrize(
    "workers",
    [None, [], ["x"], [{"sound": 1}], [{"sound": True, "sha256": "1"}]],
)
async def test_live_report_is_read_strictly(tmp_path, engine, workers):
    client = EngineClient(Address.of_socket(tmp_path / "e.sock"))
    engine.resident = workers
    with pytest.raises(FormatError):
        await live_digest(client)


# The canary by itself.


async def test_canary_is_none_where_no_text_is_completed(tmp_path, engine):
    engine._v1_completions = lambda request: engine.route(
        replace(request, path="/absent")
    )
    client = EngineClient(Address.of_socket(tmp_path / "e.sock"))
    assert await ask_canary(client, "toy") is None


async def test_canary_digests_differ_by_answer_alone(tmp_path, engine):
    client = EngineClient(Address.of_socket(tmp_path / "e.sock"))
    one = await ask_canary(client, "toy")
    assert await ask_canary(client, "toy") == one
    engine.text = "\ud800"  # half a surrogate pair, which UTF-8 can't carry
    other = await ask_canary(client, "toy")
    assert other.prompts == one.prompts
    assert other.outputs != one.outputs


async def test_canary_without_an_engine(tmp_path):
    client = EngineClient(Address.of_socket(tmp_path / "absent.sock"))
    with pytest.raises(EngineDiedError, match="canary"):
        await ask_canary(client, "toy")
