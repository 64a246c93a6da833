"""VLLM_SERVER_DEV_MODE gives an engine routes that load other weights.

The variable may stand in the environment that the gateway was started in, or in that
of an engine which somebody else starts. The real vLLM registers its routes here, as it
does when it starts, with and without it.
"""

import sys

import pytest
from fakes.engine_environment import plain_spec, result_of
from fakes.routed_engine import honest_evidence

from gateway.endpoints import refusal
from gateway.engine.spec import child_environment
from gateway.errors import DeniedEndpointError, StartupRefusedError
from gateway.serving import FORBIDDEN_ROUTES, check_evidence

REGISTER = """
import json, os
from argparse import Namespace
from fastapi import FastAPI
from vllm.entrypoints.launchers.api_server.routers import register_api_routers
from gateway.engine.vllm_plugin.endpoint import _routes
from gateway.engine.vllm_plugin.state import _SWITCHES
from vllm.entrypoints.serve.sagemaker.api_router import sagemaker_standards_bootstrap

app = FastAPI()
app.state.args = Namespace(enable_lora=True)
register_api_routers(app.state.args, app, ())
app = sagemaker_standards_bootstrap(app)
switches = {name: os.environ[name] for name in _SWITCHES if name in os.environ}
print("RESULT", json.dumps([_routes(app), switches]))
"""
HOSTILE = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}


def registered(environment):
    """Routes and dangerous switches of an engine in this environment."""
    return result_of(REGISTER, environment=environment)


def evidence_of(world, routes, switches):
    evidence = honest_evidence(world.manifest) | {"nonce": "n", "routes": routes}
    evidence["serving_state"]["switches"] = switches
    return evidence


@pytest.mark.engine
def test_engine_of_ours_has_none_of_them(tmp_path, world):
    spec = plain_spec(tmp_path)
    parent = {"PATH": "/usr/bin:/bin", **HOSTILE}
    environment = child_environment(spec, sys.executable, cpu=True, parent=parent)
    routes, switches = registered(environment)
    assert switches == {}
    assert "GET /health" in routes
    evidence = evidence_of(world, routes, switches)
    check_evidence(world.manifest, evidence, nonce="n", dtype="float32")


@pytest.mark.engine
def test_engine_of_somebody_else_is_refused_for_each_of_them(tmp_path, world):
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    plain, _ = registered(environment)
    routes, switches = registered(environment | HOSTILE)
    assert switches == HOSTILE
    added = sorted({r.partition(" ")[2] for r in set(routes) - set(plain)})
    assert {"/collective_rpc", "/update_weights", "/sleep"} <= set(added)
    assert {"/v1/load_lora_adapter", "/adapters"} <= set(added)
    # The switch shows, and any route by itself, too.
    for found, match in (
        (evidence_of(world, plain, switches), "switches"),
        (evidence_of(world, routes, {}), "bypass the weights"),
    ):
        with pytest.raises(StartupRefusedError, match=match):
            check_evidence(world.manifest, found, nonce="n", dtype="float32")
    # No route about weights or memory is new to us.
    words = ("weight", "adapter", "rpc", "sleep", "wake", "pause", "resume")
    told = [path for path in added if any(word in path for word in words)]
    looks = {"/is_paused", "/is_sleeping", "/weight_info", "/adapters/{adapter_name}"}
    assert set(told) - looks <= set(FORBIDDEN_ROUTES)


@pytest.mark.parametrize("path", FORBIDDEN_ROUTES)
def test_clients_are_told_why_they_get_none(path):
    assert isinstance(refusal(path), DeniedEndpointError)
