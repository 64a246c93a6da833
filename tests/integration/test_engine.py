"""The real vLLM, on a model of half a megabyte."""

import hashlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from fakes.processes import group
from fakes.tiny_model import make_tiny_llama
from safetensors import safe_open

from gateway.engine.managed import EngineSpec, ManagedEngine
from gateway.engine.vllm_plugin.tree import Tensor, tensor_root
from gateway.errors import StartupRefusedError
from gateway.http import httpx

pytestmark = pytest.mark.engine

NONCE = "0123456789abcdef"
MESSAGES = [{"role": "user", "content": "an unmistakable prompt"}]


def reference(model, *, listed=True):
    tensors = []
    with safe_open(model / "model.safetensors", framework="np") as file:
        for name in file.keys():  # noqa: SIM118 - no mapping
            array = file.get_tensor(name)
            digest = hashlib.sha256(array.tobytes()).hexdigest()
            tensors.append(Tensor(name, "F32", array.shape, digest))
    entries = [t._asdict() | {"sha256": "sha256:" + t.sha256} for t in tensors]
    root = tensor_root(tensors)
    return json.dumps({"root": root, "tensors": entries if listed else None}).encode()


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


def shared_memory():
    return {path.name for path in Path("/dev/shm").iterdir()}


async def test_serves_what_was_measured(make, model):
    engine = make(model)
    expected = json.loads(engine._spec.reference)["root"]
    before = shared_memory()
    await engine.start()
    evidence = await engine.evidence(NONCE)
    [worker] = evidence["workers"]
    assert worker["started"] == 1
    [load] = worker["loads"]
    assert (load["root"], load["count"]) == (expected, 21)
    assert load["bytes"] == (model / "model.safetensors").stat().st_size - 2144
    answers = [await ask(engine, messages=MESSAGES, logprobs=True) for _ in range(2)]
    texts = [answer["choices"][0]["message"]["content"] for answer in answers]
    assert texts[0] == texts[1]
    assert len(texts[0]) == 8
    leader = engine.pid
    assert len(group(leader)) >= 4  # keeper, API server, engine core, worker
    await engine.stop()
    assert not group(leader)
    assert shared_memory() <= before
    log = (engine.socket.parent / "engine.log").read_text()
    assert "unmistakable" not in log


async def test_state_is_the_same_at_the_next_boot(make, model, tmp_path):
    copy = tmp_path / "elsewhere" / "model"
    shutil.copytree(model, copy)
    states = []
    for folder, killed in ((model, True), (copy, False)):
        engine = make(folder)
        await engine.start()
        evidence = await engine.evidence(NONCE)
        states.append(evidence["serving_state"])
        leader = engine.pid
        if killed:
            os.kill(evidence["pid"], signal.SIGKILL)
            assert await engine.wait() == 128 + signal.SIGKILL
            assert not group(leader)
        await engine.stop()
        assert not group(leader)
    assert states[0] == states[1]


@pytest.mark.parametrize("listed", [True, False])
async def test_flipped_bit(make, model, tmp_path, listed):
    tampered = tmp_path / "tampered"
    shutil.copytree(model, tampered)
    path = tampered / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    engine = make(tampered, reference=reference(model, listed=listed))
    with pytest.raises(StartupRefusedError) as caught:
        await engine.start()
    if listed:
        assert caught.value.tensor == "model.norm.weight"
        assert caught.value.expected != caught.value.found
    else:
        assert "another tensor root" in str(caught.value)
    assert not group(engine.pid)
