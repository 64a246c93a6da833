"""The real vLLM, on a model of half a megabyte."""

import hashlib
import json
import os
import shutil
import signal
import stat
import sys
from pathlib import Path

import pytest
from fakes.processes import group, listening
from fakes.tiny_model import make_tiny_llama
from safetensors import safe_open

from attest.hashing import hash_files, scan_model
from gateway.engine.client import EngineClient
from gateway.engine.managed import EngineSpec, ManagedEngine
from gateway.engine.sealed import seal_model
from gateway.engine.vllm_plugin.tree import Tensor, tensor_root
from gateway.errors import StartupRefusedError
from gateway.http import httpx
from gateway.live import live_digest

pytestmark = pytest.mark.engine

NONCE = "0123456789abcdef"
MESSAGES = [{"role": "user", "content": "an unmistakable prompt"}]


def reference(model):
    tensors = []
    with safe_open(model / "model.safetensors", framework="np") as file:
        for name in file.keys():  # noqa: SIM118 - no mapping
            array = file.get_tensor(name)
            digest = hashlib.sha256(array.tobytes()).hexdigest()
            tensors.append(Tensor(name, "F32", array.shape, digest))
    entries = [t._asdict() | {"sha256": "sha256:" + t.sha256} for t in tensors]
    root = tensor_root(tensors)
    return json.dumps({"root": root, "tensors": entries}).encode()


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return make_tiny_llama(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def make(tmp_path):
    def _make(model, **changes):
        run_dir = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        run_dir.mkdir(mode=0o700)
        fields = {
            "python": sys.executable,
            "model_dir": model,
            "served_model_name": "tiny",
            "run_dir": run_dir,
            "reference": reference(model),
            "dtype": "float32",
            "max_model_len": 512,
        }
        return ManagedEngine(EngineSpec(**(fields | changes)))

    return _make


async def ask(engine, **request):
    transport = httpx.AsyncHTTPTransport(uds=str(engine.socket))
    async with httpx.AsyncClient(transport=transport, timeout=60) as client:
        answer = await client.post(
            "http://engine/v1/chat/completions",
            json={"model": "tiny", "max_tokens": 8, "temperature": 0} | request,
        )
    return answer.raise_for_status().json()


async def check_service(engine):
    """It answers, twice the same, and keeps the prompt out of its log."""
    answers = [await ask(engine, messages=MESSAGES, logprobs=True) for _ in range(2)]
    texts = [answer["choices"][0]["message"]["content"] for answer in answers]
    assert texts[0] == texts[1]
    assert len(texts[0]) == 8
    log = (engine.socket.parent / "engine.log").read_text()
    assert "unmistakable" not in log


def check_sockets(engine):
    """By default vLLM's own lie in /tmp, and whoever reaches them commands it.

    torch.distributed's store and gloo listen besides, which no setting moves; they take
    no requests, and must not be reachable from elsewhere.
    """
    folder = engine.socket.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    found = listening(group(engine.pid))
    assert str(engine.socket) in found
    loopback = "tcp 0100007F:"
    paths = [path for path in found if not path.startswith(loopback)]
    assert len(paths) > 1
    assert [path for path in paths if not path.startswith(f"{folder}/")] == []


async def test_two_boots(make, model, tmp_path):
    """One stopped, one killed: the same state of another copy, nothing left of both."""
    copy = tmp_path / "elsewhere" / "model"
    shutil.copytree(model, copy)
    states = []
    for folder, killed in ((model, False), (copy, True)):
        engine = make(folder)
        await engine.start()
        evidence = await engine.evidence(NONCE)
        states.append(evidence["serving_state"])
        [worker] = evidence["workers"]
        assert worker["started"] == 1
        [load] = worker["loads"]
        assert load["root"] == json.loads(reference(model))["root"]
        assert (load["count"], load["bytes"]) == (21, 462592)
        await check_service(engine)
        check_sockets(engine)
        # oneDNN keeps float32 matrices of its own, so that a digest would mean nothing.
        assert await live_digest(EngineClient(engine.address)) is None
        leader = engine.pid
        assert len(group(leader)) >= 4  # keeper, API server, engine core, worker
        if killed:
            os.kill(evidence["pid"], signal.SIGKILL)
            assert await engine.wait() == 128 + signal.SIGKILL
            assert not group(leader)
        await engine.stop()
        assert not group(leader)
    assert states[0] == states[1]


def multiplies_bfloat16():
    """Whether this CPU has instructions for it."""
    flags = set(Path("/proc/cpuinfo").read_text().split())
    return bool(flags & {"avx512_bf16", "amx_bf16"})


async def test_sealed_copies_and_live_weights(make, model, tmp_path):
    """All that the engine reads are sealed copies: the model on the disk is gone.

    In bfloat16 the parameter is what serves, soundly hashed, twice the same; but where
    the CPU multiplies bfloat16 itself vLLM packs copies, and the plug-in says so.
    """
    gone = shutil.copytree(model, tmp_path / "gone")
    files = scan_model(gone)
    folder = tmp_path / "sealed"
    sealed = seal_model(files, hash_files(files), folder, shards=True)
    shutil.rmtree(gone)
    engine = make(folder, dtype="bfloat16", reference=reference(model), sealed=sealed)
    await engine.start()
    state = (await engine.evidence(NONCE))["serving_state"]
    assert (state["model"], state["tokenizer"]) == ("<model>", "<model>")
    client = EngineClient(engine.address)
    found = await live_digest(client)
    assert found is not None or multiplies_bfloat16()
    await ask(engine, messages=MESSAGES)
    assert await live_digest(client) == found
    await engine.stop()
    assert not (folder / "config.json").exists()


async def test_flipped_bit(make, model, tmp_path):
    tampered = tmp_path / "tampered"
    shutil.copytree(model, tampered)
    path = tampered / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    engine = make(tampered, reference=reference(model))
    with pytest.raises(StartupRefusedError) as caught:
        await engine.start()
    assert caught.value.tensor == "model.norm.weight"
    assert caught.value.expected != caught.value.found
    assert not group(engine.pid)
