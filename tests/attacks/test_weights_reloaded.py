"""Other weights are loaded into the running engine.

vLLM's own `reload_weights` takes a folder; development mode offers it over HTTP, and
none of vLLM's digests shows it.
"""

import json
import subprocess
import sys

import pytest
from fakes.tiny_model import make_tiny_llama

pytestmark = pytest.mark.engine

# In a process of its own: vLLM changes signal handlers, loggers and torch's defaults.
ATTACK = """
import hashlib, json, sys
from pathlib import Path
from safetensors.numpy import load_file
from gateway.engine.vllm_plugin.tree import Tensor, tensor_root
good, other, run_dir = map(Path, sys.argv[1:])
tensors = [
    Tensor(name, "F32", array.shape, hashlib.sha256(array.tobytes()).hexdigest())
    for name, array in load_file(good / "model.safetensors").items()
]
entries = [t._asdict() | {"sha256": "sha256:" + t.sha256} for t in tensors]
data = json.dumps({"root": tensor_root(tensors), "tensors": entries}).encode()
path = run_dir / "reference.json"
path.write_bytes(data)
from vllm import LLM
llm = LLM(
    model=str(good), load_format="attested", dtype="float32", enforce_eager=True,
    max_model_len=64, kv_cache_memory_bytes=1 << 28,
    model_loader_extra_config={
        "reference": str(path), "reference_sha256": hashlib.sha256(data).hexdigest()
    },
    worker_extension_cls="gateway.engine.vllm_plugin.worker.AttestWorkerExtension",
)
def report():
    [worker] = llm.collective_rpc("attest_report")
    return [worker["started"], len(worker["loads"])]
reports = [report()]
for folder in (good, other):
    try:
        llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
        error = None
    except Exception as caught:
        error = type(caught).__name__
    reports.append([*report(), error])
print("RESULT", json.dumps(reports))
"""


def test_reload_is_checked_and_shows(tmp_path):
    good = make_tiny_llama(tmp_path / "good")
    other = make_tiny_llama(tmp_path / "other", seed=1)
    done = subprocess.run(
        [sys.executable, "-c", ATTACK, good, other, tmp_path],
        env={
            "HOME": str(tmp_path),
            "PATH": "/usr/bin:/bin",
            "HF_HUB_OFFLINE": "1",
            "TORCHDYNAMO_DISABLE": "1",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_PLUGINS": "attested",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    [result] = [x for x in done.stdout.splitlines() if x.startswith("RESULT")]
    assert json.loads(result.removeprefix("RESULT")) == [
        [1, 1],
        [2, 2, None],
        [3, 2, "WeightsRefusedError"],
    ]
    refusal = json.loads((tmp_path / "refusal.json").read_bytes())
    assert refusal["reason"] == "another content"
