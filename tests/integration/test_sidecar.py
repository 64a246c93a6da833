"""The sidecar layout for real: two users, one shared folder, a stock vLLM.

One pod from the first test to the last: its engine is replaced by another each time.
"""

import json
import os

import pytest
from fakes.sidecar import ENGINE_UID, GATEWAY_UID, POD_GID, Pod, python_for_all

from attest import tokens
from attest.claims import Measured
from attest.client import openai_client
from attest.errors import VerificationError
from attest.policy import Policy

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(os.getuid() != 0, reason="needs root, to act as two users"),
]
ASK = {"model": "tiny", "max_tokens": 8, "temperature": 0}
USER = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def pod():
    python = python_for_all()
    if python is None:
        pytest.skip("no interpreter of this version that every user may run")
    pod = Pod(python)
    yield pod
    pod.close()


def ask(pod, measured=Measured.ENGINE):
    """Claims of an answer that a client with this policy took."""
    policy = Policy(authorities=pod.policy.authorities, min_measured=measured)
    found = []
    with openai_client(
        f"{pod.url}/v1", policy, on_evidence=lambda *one: found.append(one)
    ) as client:
        client.chat.completions.create(messages=USER, **ASK)
    return found[-1][0].claims


def boot_claims(pod):
    return tokens.parse(pod.boot()["bootRecord"], typ="eat+jwt").claims


def test_plugin_in_a_stock_engine_measures_there(pod):
    gateway = pod.start_gateway()
    pod.wait(lambda: pod.get("/startupz") == 200, gateway)
    assert pod.get("/readyz") == 503
    engine = pod.start_engine()
    pod.wait(lambda: pod.get("/readyz") == 200, gateway, engine)
    assert ask(pod)["weights"]["measured"] == "engine"
    claims = boot_claims(pod)
    assert claims["engine"]["mode"] == "external"
    assert claims["serving_state"]["load_format"] == "attested"
    report = json.loads((pod.shared / "report.json").read_bytes())
    [load] = report["workers"][0]["loads"]
    assert load["root"] == claims["weights"]["root"]


def test_socket_is_for_the_pods_group_alone(pod):
    found = pod.socket.stat()
    assert found.st_gid == POD_GID
    assert found.st_mode & 0o007 == 0o005  # connecting takes the right to write


def test_neither_user_can_do_the_others_part(pod):
    assert pod.reference.stat().st_uid == GATEWAY_UID
    assert pod.socket.stat().st_uid == ENGINE_UID
    for uid, path in (
        (ENGINE_UID, pod.reference),
        (ENGINE_UID, pod.model / "model.safetensors"),
        (GATEWAY_UID, pod.model / "model.safetensors"),
        (ENGINE_UID, pod.root / "keys" / "issuer.pem"),
    ):
        assert not pod.may_write(uid, path)


def test_other_weights_are_refused_by_the_loader_and_by_the_gateway(pod):
    pod.end(pod.engine)
    pod.wait(lambda: pod.get("/readyz") == 503, pod.gateway)
    engine = pod.start_engine(model=pod.other, name="engine-other")
    pod.wait(lambda: pod.gateway.poll() is not None)
    assert pod.gateway.wait() == 1
    assert engine.wait(120) != 0
    [refusal] = (pod.root / "state" / "refusals").glob("*.json")
    reason = tokens.parse(
        json.loads(refusal.read_bytes())["refusal"], typ="startup-refusal+jwt"
    ).claims["reason"]
    assert "another content" in reason


def test_without_the_plugin_the_files_are_all_that_is_known(pod):
    gateway = pod.start_gateway(name="gateway-files")
    pod.wait(lambda: pod.get("/startupz") == 200, gateway)
    engine = pod.start_engine(plugin=False, name="engine-stock")
    pod.wait(lambda: pod.get("/readyz") == 200, gateway, engine)
    assert ask(pod, Measured.FILES)["weights"]["measured"] == "files"
    with pytest.raises(VerificationError, match="at least engine"):
        ask(pod)
    claims = boot_claims(pod)
    assert claims["engine"]["dtype"] == "unknown"
    pod.canary = claims["canary"]


def test_other_weights_without_the_plugin_show_in_the_canary_and_are_never_engine(pod):
    pod.end(pod.engine)
    pod.wait(lambda: pod.get("/readyz") == 503, pod.gateway)
    engine = pod.start_engine(model=pod.other, plugin=False, name="engine-wrong")
    pod.wait(lambda: pod.get("/readyz") == 200, pod.gateway, engine)
    assert ask(pod, Measured.FILES)["weights"]["measured"] == "files"
    found = boot_claims(pod)["canary"]
    assert found["prompts"] == pod.canary["prompts"]
    assert found["outputs"] != pod.canary["outputs"]
