"""Whoever sets variables in the gateway's environment steers what the engine loads."""

from pathlib import Path

from fakes.misbehaving_engine import make_engine

from gateway.engine.managed import EngineSpec, ManagedEngine

HOSTILE = {
    "BASH_ENV": "/evil/rc",
    "CUDA_INJECTION64_PATH": "/evil/lib.so",
    "HF_HUB_OFFLINE": "0",
    "LD_AUDIT": "/evil/lib.so",
    "LD_LIBRARY_PATH": "/evil",
    "OMP_NUM_THREADS": "1",
    "PYTHONHOME": "/evil",
    "PYTHONPATH": "/evil",
    "PYTHONSTARTUP": "/evil/start.py",
    "SAGEMAKER_MODEL_PATH": "/evil",
    "TORCHINDUCTOR_CACHE_DIR": "/evil",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "1",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
    "VLLM_PLUGINS": "evil",
    "VLLM_SERVER_DEV_MODE": "1",
}


def environment(pid):
    raw = Path(f"/proc/{pid}/environ").read_text()
    return dict(entry.split("=", 1) for entry in raw.split("\0") if entry)


async def test_nothing_of_it_reaches_the_child(tmp_path, monkeypatch):
    python = make_engine(tmp_path)
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    run_dir = tmp_path / "run"
    run_dir.mkdir(mode=0o700)
    engine = ManagedEngine(
        EngineSpec(
            python=python,
            model_dir=tmp_path,
            served_model_name="good",
            run_dir=run_dir,
            reference=b"{}",
            dtype="float32",
        )
    )
    await engine.start()
    pid = (await engine.evidence("0123456789"))["pid"]
    found = environment(pid)
    await engine.stop()
    assert not [value for value in found.values() if "evil" in value]
    assert found["VLLM_PLUGINS"] == "attested,attested_evidence"
    assert found["HF_HUB_OFFLINE"] == "1"
    assert found["SAGEMAKER_MODEL_PATH"] == f"{run_dir}/absent"
    ours = {"SAGEMAKER_MODEL_PATH", "HF_HUB_OFFLINE", "VLLM_PLUGINS"}
    assert not found.keys() & (HOSTILE.keys() - ours)
