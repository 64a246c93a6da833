import json
import shutil

import pytest
import torch
from fakes.profiled import silent

from attest.training.batches import Sampler, encode
from attest.training.constitution import parse_constitution
from attest.training.demo.corpus import corpus, to_jsonl
from attest.training.demo.tiny import build_model, build_tokenizer, save
from attest.training.layout import read_layout
from attest.training.ledger import Ledger
from attest.training.loop import Plan, Trainer
from attest.training.profile.document import write_profile
from attest.training.profile.lca import ProfileRecorder
from attest.training.profile.probe import make_probes
from attest.training.routing import compile_schedule
from attest.training.weights import copy_with, load_model, load_tensors

CONSTITUTION = b"""\
schema: constitution/1
id: toy
version: 1.0.0
principles:
  - id: refuse
    title: Refuse
    class: safety-critical
    text: Decline.
    band: all
    evaluation: {predicate: starts-with, value: "no, i will", heldout: heldout.jsonl}
  - {id: unsure, title: U, class: capability, text: U}
"""
TOKENIZER = build_tokenizer()


def rows(stage, split="train"):
    return [row for row in corpus(stage, split) if row.principle == "refuse"]


def train(model, folder, *, stage, steps, lr):
    """A governed stage with its ledger and profile, as a run leaves them."""
    parsed = parse_constitution(CONSTITUTION)
    schedule = compile_schedule(parsed, read_layout(model))
    held = [encode(TOKENIZER, row) for row in rows("governed", "test")[:4]]
    probes = make_probes(held, schedule, pad=TOKENIZER.pad_token_id)
    recorder = ProfileRecorder(model, probes, schedule.layout, tolerance=0.1)
    with Ledger.create(folder / "ledger.jsonl") as ledger:
        Trainer(model, ledger, progress=silent, observers=[recorder]).governed(
            Plan("governed", steps, 8, lr),
            Sampler([encode(TOKENIZER, row) for row in rows(stage)], seed=0),
            constitution=parsed,
            schedule=schedule,
        )
    write_profile(folder / "profile.json", recorder.result("governed"))
    save(model, TOKENIZER, folder / "model")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    (folder / "constitution.yaml").write_bytes(CONSTITUTION)
    (folder / "data").mkdir()
    heldout = corpus("governed", "heldout")
    (folder / "data" / "heldout.jsonl").write_bytes(to_jsonl(heldout))
    train(build_model(TOKENIZER, seed=0), folder, stage="governed", steps=40, lr=4e-3)
    return folder


@pytest.fixture(scope="module")
def undone(run, tmp_path_factory):
    """A later run that teaches the contrary."""
    folder = tmp_path_factory.mktemp("later")
    train(load_model(run / "model"), folder, stage="base", steps=10, lr=1e-3)
    return folder


@pytest.fixture
def diagnose(attest, run):
    def diagnose(model, *arguments):
        named = ["--run", run, "--model", model]
        return attest("profile", "diagnose", *named, *arguments)

    return diagnose


def test_what_was_undone_by_which_steps(diagnose, undone):
    ledger = undone / "ledger.jsonl"
    result = diagnose(
        undone / "model", "--ledger", ledger, "--top", "2", "--format", "json"
    )
    assert result.exit_code == 1, result.stderr
    (found,) = json.loads(result.stdout)["principles"]
    assert (found["principle"], found["verdict"]) == ("refuse", "degraded")
    assert found["kept"][0] >= 9
    assert found["kept"][1] < 3
    assert found["fall"]["rows"] == 12
    assert found["recovered"] >= 0.9
    assert set(found["responsible"]) <= {f"L{i:02d}" for i in range(6)}
    for key, of in (("built", 40), ("broke", 10)):
        assert (found[key]["method"], found[key]["of"]) == ("lca", of)
        assert len(found[key]["ranked"]) == 2
    assert found["broke"]["ranked"][0]["samples"][0].startswith("refuse-")
    assert found["notes"] == []


def test_in_words(diagnose, undone):
    result = diagnose(undone / "model", "--ledger", undone / "ledger.jsonl")
    assert "refuse: DEGRADED: its answers are +" in result.stdout
    assert "of 12 kept it, now" in result.stdout
    assert "responsible: L0" in result.stdout
    assert "that undid it, by the loss that each was measured to move" in result.stdout
    assert "not proven: that these layers or steps are the cause" in result.stdout


def test_one_layer_that_was_tampered_with(diagnose, run, tmp_path):
    tensors = load_tensors(run / "model")
    generator = torch.Generator().manual_seed(0)
    for name, tensor in tensors.items():
        noise = torch.randn(tensor.shape, generator=generator)
        tensor.add_(noise, alpha=0.2 if "layers.4." in name else 1e-3)
    copy_with(run / "model", tmp_path / "model", tensors)
    result = diagnose(tmp_path / "model", "--format", "json")
    assert result.exit_code == 1, result.stderr
    (found,) = json.loads(result.stdout)["principles"]
    assert found["responsible"] == ["L04"]
    assert found["units"][0]["first"] > 0.95
    assert found["built"]["method"] == "lca"
    assert found["broke"] is None


def test_the_same_model_is_not_degraded(diagnose, run):
    result = diagnose(run / "model", "--principle", "refuse")
    assert result.exit_code == 0, result.stderr
    assert "refuse: NOT DEGRADED" in result.stdout
    assert "responsible" not in result.stdout


def test_a_ledger_without_a_profile_has_energies_alone(diagnose, undone, tmp_path):
    ledger = shutil.copy(undone / "ledger.jsonl", tmp_path / "ledger.jsonl")
    result = diagnose(undone / "model", "--ledger", ledger)
    assert "which cannot tell help from harm" in result.stdout


def test_a_profile_of_another_ledger_is_told(diagnose, run, undone, tmp_path):
    shutil.copy(undone / "ledger.jsonl", tmp_path / "ledger.jsonl")
    shutil.copy(run / "profile.json", tmp_path / "profile.json")
    result = diagnose(undone / "model", "--ledger", tmp_path / "ledger.jsonl")
    assert "note: profile: expected the 40 steps of stage 'governed'" in result.stdout
    assert "undid it" not in result.stdout


@pytest.mark.parametrize(
    ("principle", "words"),
    [("unsure", "expected an evaluation"), ("other", "expected one of refuse, unsure")],
)
def test_a_principle_that_cannot_be_judged(diagnose, run, principle, words):
    result = diagnose(run / "model", "--principle", principle)
    assert result.exit_code == 4
    assert words in result.stderr


def test_no_run(attest, tmp_path, run):
    result = attest("profile", "diagnose", "--run", tmp_path, "--model", run / "model")
    assert result.exit_code == 4
    assert "constitution.yaml" in result.stderr
