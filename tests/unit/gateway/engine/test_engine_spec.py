"""From a spec to the command line and environment of the child."""

import hashlib
import json
from pathlib import Path

import pytest

from attest.errors import ConfigurationError
from gateway.engine.spec import EngineSpec, child_environment, command_line

RUN = Path("/run/attest")


def spec(**changes):
    fields = {
        "python": "python3",
        "model_dir": Path("/models/m"),
        "served_model_name": "m",
        "run_dir": RUN,
        "reference": b'{"root":"x","tensors":null}',
        "dtype": "float32",
    }
    return EngineSpec(**(fields | changes))


def argv(*, cpu=True, **changes):
    return command_line(spec(**changes), "/venv/bin/python", cpu=cpu)


def env(parent=None, *, cpu=True):
    return child_environment(spec(), "/venv/bin/python", cpu=cpu, parent=parent or {})


@pytest.mark.parametrize(
    "flag",
    [
        "--uds=/run/attest/engine.sock",
        "--model=/models/m",
        "--served-model-name=m",
        "--dtype=float32",
        "--load-format=attested",
        "--generation-config=vllm",
        "--no-enable-log-requests",
        "--disable-uvicorn-access-log",
    ],
)
def test_fixed_flags(flag):
    assert flag in argv()
    assert flag in argv(cpu=False)


def test_isolated_interpreter():
    assert argv()[:3] == ["/venv/bin/python", "-I", "-m"]


def test_reference_is_named_with_its_digest():
    [value] = [a for a in argv() if a.startswith("--model-loader-extra-config=")]
    assert json.loads(value.partition("=")[2]) == {
        "reference": "/run/attest/reference.json",
        "reference_sha256": hashlib.sha256(spec().reference).hexdigest(),
    }


def test_context_length():
    assert "--max-model-len=9" in argv(max_model_len=9)
    assert not [a for a in argv() if a.startswith("--max-model-len")]


def test_extra_arguments_stand_before_the_fixed_ones():
    # The last one wins in argparse.
    found = argv(extra_args=("--load-format=auto", "--kv-cache-memory-bytes=5"))
    assert found.index("--load-format=auto") < found.index("--load-format=attested")
    default = found.index(f"--kv-cache-memory-bytes={1 << 30}")
    assert default < found.index("--kv-cache-memory-bytes=5")


def test_gpu_is_not_forced_to_run_eagerly():
    assert "--enforce-eager" in argv()
    assert "--enforce-eager" not in argv(cpu=False)


def test_environment_is_whole():
    assert set(env()) == {
        "DO_NOT_TRACK",
        "HF_HUB_OFFLINE",
        "HOME",
        "LANG",
        "PATH",
        "PYTHONNOUSERSITE",
        "PYTHONSAFEPATH",
        "SAGEMAKER_MODEL_PATH",
        "TMPDIR",
        "TORCHDYNAMO_DISABLE",
        "TRANSFORMERS_OFFLINE",
        "VLLM_NO_USAGE_STATS",
        "VLLM_PLUGINS",
        "VLLM_RPC_BASE_PATH",
    }


def test_folders_lie_in_the_run_folder():
    names = ("HOME", "TMPDIR", "VLLM_RPC_BASE_PATH", "SAGEMAKER_MODEL_PATH")
    assert all(Path(env()[name]).is_relative_to(RUN) for name in names)


def test_only_devices_are_inherited_on_gpus():
    parent = {"CUDA_VISIBLE_DEVICES": "1", "LD_PRELOAD": "x", "VLLM_PLUGINS": "evil"}
    found = env(parent, cpu=False)
    assert found["CUDA_VISIBLE_DEVICES"] == "1"
    assert found["VLLM_PLUGINS"] == "attested,attested_evidence"
    assert "LD_PRELOAD" not in found
    assert "TORCHDYNAMO_DISABLE" not in found
    assert "CUDA_VISIBLE_DEVICES" not in env(parent)


def test_longest_run_folder():
    spec(run_dir=Path("/" + "x" * 69)).check_paths()
    with pytest.raises(ConfigurationError, match="has 71 bytes, at most 70"):
        spec(run_dir=Path("/" + "x" * 70)).check_paths()
    with pytest.raises(ConfigurationError, match="has 71 bytes"):
        spec(run_dir=Path("/" + "é" * 35)).check_paths()
