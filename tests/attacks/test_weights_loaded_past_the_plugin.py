"""The engine is brought to load through another format than `attested`.

vLLM only logs a plug-in that fails to load, and a second package may register our
format's name: what must not happen is that the engine then serves.
"""

import json
import subprocess
import sys

import pytest
from fakes.tiny_model import make_tiny_llama

from gateway.engine.spec import EngineSpec, child_environment, command_line

pytestmark = pytest.mark.engine


def test_engine_does_not_come_up(tmp_path):
    spec = EngineSpec(
        python=sys.executable,
        model_dir=make_tiny_llama(tmp_path / "model"),
        served_model_name="tiny",
        run_dir=tmp_path,
        reference=b"{}",
        dtype="float32",
        max_model_len=64,
    )
    command = [
        argument.replace("--load-format=attested", "--load-format=safetensors")
        for argument in command_line(spec, sys.executable, cpu=True)
        if not argument.startswith("--model-loader-extra-config")
    ]
    environment = child_environment(spec, sys.executable, cpu=True, parent={})
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode != 0
    refusal = json.loads((tmp_path / "refusal.json").read_bytes())
    assert refusal["expected"] == "load format attested and one root"
    assert "load format safetensors" in refusal["found"]
