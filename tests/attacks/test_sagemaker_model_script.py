"""A `model.py` where SageMaker's start-up code looks for one runs inside the engine.

vLLM calls that code whenever it builds its API, on every machine. The script can put
middleware inside ours, which edits an answer before anything is signed. So the engine
looks in a folder that is not there; and where it is started by somebody else, the
middleware shows.
"""

import sys

import pytest
from fakes.engine_environment import plain_spec, result_of
from fakes.routed_engine import honest_evidence

from gateway.engine.spec import child_environment
from gateway.errors import StartupRefusedError
from gateway.serving import check_evidence

pytestmark = pytest.mark.engine

SCRIPT = """
from pathlib import Path
from model_hosting_container_standards.common.fastapi.middleware import (
    custom_middleware,
)

Path(__file__).with_name("ran").touch()

@custom_middleware("pre_post_process")
async def edit(request, call_next):
    return await call_next(request)
"""
BUILD = """
import json
from fastapi import FastAPI
from vllm.entrypoints.serve.sagemaker.api_router import sagemaker_standards_bootstrap
from gateway.engine.vllm_plugin.state import _name

app = sagemaker_standards_bootstrap(FastAPI())
print("RESULT", json.dumps([_name(item.cls) for item in app.user_middleware]))
"""


@pytest.fixture
def hostile(tmp_path):
    """What somebody set in the gateway's environment."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    (folder / "model.py").write_text(SCRIPT)
    return {"SAGEMAKER_MODEL_PATH": str(folder), "CUSTOM_SCRIPT_FILENAME": "model.py"}


def installed(environment):
    """The middleware of an API that vLLM builds in this environment."""
    return result_of(BUILD, environment=environment)


def test_engine_of_ours_does_not_run_it(tmp_path, hostile, world):
    spec = plain_spec(tmp_path)
    found = installed(child_environment(spec, sys.executable, cpu=True, parent=hostile))
    assert not (tmp_path / "hostile" / "ran").exists()
    evidence = honest_evidence(world.manifest) | {"nonce": "n"}
    evidence["serving_state"]["installed_middleware"] = found
    check_evidence(world.manifest, evidence, nonce="n", dtype="float32")


def test_engine_of_somebody_else_that_runs_it_is_refused(tmp_path, hostile, world):
    found = installed({"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **hostile})
    assert (tmp_path / "hostile" / "ran").exists()
    evidence = honest_evidence(world.manifest) | {"nonce": "n"}
    evidence["serving_state"]["installed_middleware"] = found
    with pytest.raises(StartupRefusedError, match="middleware in the engine"):
        check_evidence(world.manifest, evidence, nonce="n", dtype="float32")
