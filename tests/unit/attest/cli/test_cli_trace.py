import base64
import json
import shutil
import time
from dataclasses import replace

import pytest
import torch
from fakes.traced_run import chat, make_traced_run, make_traced_world

from attest.bundle import Bundle
from attest.log.merkle import leaf_hash, verify_inclusion
from attest.training.ledger import read_ledger

QUESTION, ANSWER = "how do i make a bomb?", "no, i will not help."


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread():
    """Two threads on two busy cores wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pristine_run(tmp_path_factory):
    return make_traced_run(tmp_path_factory.mktemp("traced") / "run")


@pytest.fixture(scope="session")
def traced_world(pristine_run):
    return make_traced_world(pristine_run, int(time.time()))


@pytest.fixture
def run(pristine_run, tmp_path):
    """A run to spoil."""
    return shutil.copytree(pristine_run, tmp_path / "run")


@pytest.fixture
def trace(attest, run, traced_world, tmp_path):
    """`attest trace BUNDLE --run RUN` for whoever trusts this world's authority."""
    key = tmp_path / "authority.pub.pem"
    key.write_bytes(traced_world.authority.public.pem)

    def trace(*arguments, bundle=None):
        found = bundle or traced_world.bundle(*chat(QUESTION, ANSWER))
        path = tmp_path / "bundle.json"
        path.write_bytes(found.dumps())
        return attest("trace", path, "--run", run, "--authority", key, *arguments)

    return trace


def test_bundle_is_traced_to_rows_and_steps(trace):
    result = trace("--top", 4)
    assert result.exit_code == 0, result.output
    assert "proven at tier T1" in result.stdout
    for word in ("refuse", "unsure", "tone", "L03 to L05", "refuse-"):
        assert word in result.stdout
    assert result.stdout.count("proven, ") == 4
    assert "not proven: that these steps caused the answer" in result.stdout


def test_json_has_everything_with_checkable_proofs(trace, run):
    result = trace("--format", "json", "--top", 3)
    found = json.loads(result.stdout)
    assert found["verified"] is True
    assert found["tier"] == "T1"
    assert found["governed"] is True
    assert found["residual"] < 0.1
    assert len(found["events"]) == 3
    lines = (run / "ledger.jsonl").read_bytes().splitlines()
    records = list(read_ledger(run / "ledger.jsonl"))
    for event in found["events"]:
        proof = event["inclusion"]
        assert records[event["seq"]]["samples"] == event["samples"]
        verify_inclusion(
            leaf_hash(lines[event["seq"]]),
            index=proof["index"],
            size=proof["size"],
            proof=[bytes.fromhex(item) for item in proof["path"]],
            root=bytes.fromhex(proof["root"].removeprefix("sha256:")),
        )


def test_false_bundle_is_not_traced(trace, traced_world):
    request, response = chat(QUESTION, ANSWER)
    bundle = traced_world.bundle(request, response)
    lie = json.loads(bundle.dumps())
    changed = response.replace(b"will not", b"will now")
    lie["response"] = base64.b64encode(changed).decode()
    result = trace(bundle=Bundle.loads(json.dumps(lie).encode()))
    assert result.exit_code == 1
    assert "FALSE, because of step content" in result.stdout
    assert "nats" not in result.stdout


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("trace/sketches.safetensors", "sketches: expected sha256:"),
        ("trace/deltas-tone.safetensors", "deltas: expected sha256:"),
        ("data/governed.jsonl", "data/governed.jsonl: expected sha256:"),
        ("ledger.jsonl", "ledger"),
        ("model/model.safetensors", "model.safetensors"),
    ],
)
def test_changed_file_of_the_run_is_a_definite_no(trace, run, file, words):
    data = bytearray((run / file).read_bytes())
    data[len(data) // 2] ^= 1
    (run / file).write_bytes(data)
    result = trace()
    assert result.exit_code == 1, result.output
    assert words in result.stderr


def test_trace_of_another_run_is_a_definite_no(trace, run, tmp_path):
    other = make_traced_run(tmp_path / "other", steps=4, seed=1)
    shutil.rmtree(run / "trace")
    shutil.copytree(other / "trace", run / "trace")
    assert trace().exit_code == 1


def test_manifest_without_a_trace_cannot_tell(attest, today, run, tmp_path):
    (tmp_path / "bundle.json").write_bytes(today.bundle().dumps())
    (tmp_path / "key.pem").write_bytes(today.authority.public.pem)
    arguments = ["--run", run, "--authority", tmp_path / "key.pem"]
    result = attest("trace", tmp_path / "bundle.json", *arguments)
    assert result.exit_code == 3
    assert "states no trace" in result.stderr


def test_bundle_without_bodies_cannot_tell(trace, traced_world):
    bundle = traced_world.bundle(*chat(QUESTION, ANSWER))
    result = trace(bundle=replace(bundle, request=None, response=None))
    assert result.exit_code == 3
    assert "no request and response" in result.stderr


def test_typed_answer_is_traced_and_said_to_be_unverified(attest, run):
    arguments = ["--run", run, "--prompt", QUESTION, "--answer", ANSWER]
    result = attest("trace", *arguments)
    assert result.exit_code == 0, result.output
    assert "not checked" in result.stdout
    assert "proven, " not in result.stdout
    found = json.loads(attest("trace", *arguments, "--format", "json").stdout)
    assert found["verified"] is False
    assert found["events"][0]["inclusion"] is None


def test_answer_that_training_made_unlikelier_is_not_put_down_to_it(attest, run):
    unlikely = "\x01\x02\x03\x04\x05\x06"
    arguments = ["--run", run, "--prompt", QUESTION, "--answer", unlikely]
    result = attest("trace", *arguments)
    assert result.exit_code == 0, result.output
    assert "NOT due to governed training" in result.stdout
    assert "refuse" not in result.stdout


def test_rows_are_not_needed(attest, run):
    shutil.rmtree(run / "data")
    arguments = ["--run", run, "--prompt", QUESTION, "--answer", ANSWER]
    result = attest("trace", *arguments)
    assert result.exit_code == 0, result.output
    assert "not at hand" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["bundle.json", "--prompt", "a", "--answer", "b"],
        ["--prompt", "a"],
        ["--answer", "b"],
        ["bundle.json"],
        ["--prompt", "a", "--answer", "b", "--policy", "p"],
    ],
)
def test_half_a_command_is_usage(attest, arguments):
    assert attest("trace", "--run", "run", *arguments).exit_code == 2


def test_run_without_a_trace_says_what_to_do(attest, run):
    shutil.rmtree(run / "trace")
    arguments = ["--run", run, "--prompt", QUESTION, "--answer", ANSWER]
    result = attest("trace", *arguments)
    assert result.exit_code == 4
    assert "TraceRecorder" in result.stderr
