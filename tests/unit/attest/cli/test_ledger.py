import json

import pytest
from fakes.run import make_run

from attest.digests import digest
from attest.hashing import hash_tensors, scan_model
from attest.training.ledger import Ledger, Rank
from attest.weights import tensor_root

MANIFEST = "training-manifest.json"


@pytest.fixture
def run(tmp_path, model):
    root = tensor_root(hash_tensors(scan_model(model)))
    return make_run(tmp_path / "run", weights=root).path


@pytest.fixture
def manifest(attest, model, keys, run):
    key = keys / "authority.key.pem"
    result = attest("manifest", "sign", model, "--run", run, "--key", key)
    assert result.exit_code == 0, result.stderr
    return model / MANIFEST


@pytest.fixture
def against(manifest, keys):
    """The options that make a verdict one about a signed root."""
    return ("--manifest", manifest, "--authority", keys / "authority.pub.pem")


def edit(run, old=b"refuse-00", new=b"refuse-01"):
    path = run / "ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(old, new, 1))


def test_ledger_of_a_signed_manifest_is_proven(attest, run, against):
    for place in (run, run / "ledger.jsonl"):
        result = attest("ledger", "verify", place, *against)
        assert result.exit_code == 0, result.stderr
        assert "PROVEN: the ledger that manifest sha256:" in result.stdout
        assert "only training again" in result.stdout


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (edit, "ledger_edited"),
        (lambda run: edit(run, b'"seq":3', b'"seq":4'), "ledger_edited"),
    ],
)
def test_edited_ledger_is_a_definite_no(attest, run, against, change, code):
    change(run)
    result = attest("ledger", "verify", run, *against, "--format", "json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["code"] == code


def test_cut_ledger_is_a_definite_no(attest, run, against):
    path = run / "ledger.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    result = attest("ledger", "verify", run, *against, "--format", "json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["code"] == "ledger_cut"


def test_without_a_signature_it_says_what_is_not_proven(attest, run, manifest):
    result = attest("ledger", "verify", run)
    assert result.exit_code == 0
    assert "nobody changed training.json too" in result.stdout
    result = attest("ledger", "verify", run, "--manifest", manifest)
    assert "who signed the manifest" in result.stdout


def test_without_a_root_it_cannot_tell(attest, run):
    result = attest("ledger", "verify", run / "ledger.jsonl", "--format", "json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["verdict"] == "unknown"


def test_manifest_of_another_authority(attest, run, manifest, keys):
    options = ("--manifest", manifest, "--authority", keys / "issuer.pub.pem")
    assert attest("ledger", "verify", run, *options).exit_code == 1


def test_manifest_without_a_ledger(attest, signed, run):
    result = attest("ledger", "verify", run, "--manifest", signed / MANIFEST)
    assert result.exit_code == 4
    assert "no stage of training" in result.stderr


def test_authority_without_a_manifest_is_usage(attest, run, keys):
    options = ("--authority", keys / "authority.pub.pem")
    assert attest("ledger", "verify", run, *options).exit_code == 2


def test_missing_ledger_is_configuration(attest, tmp_path):
    assert attest("ledger", "verify", tmp_path / "absent").exit_code == 4


def test_resumption_from_a_state_that_never_was(attest, run):
    path = run / "ledger.jsonl"
    with Ledger.resume(path) as ledger:
        ledger.append({"kind": "resume", "size": 2, "root": digest(b"x")})
    assert attest("ledger", "verify", path).exit_code == 1
    with Ledger.resume(path) as ledger:
        ledger.append({"kind": "resume", "size": "all", "root": digest(b"x")})
    assert attest("ledger", "verify", path).exit_code == 1


def test_resumption_is_shown(attest, run):
    path = run / "ledger.jsonl"
    with Ledger.resume(path) as ledger:
        at = ledger.summary()
        ledger.append({"kind": "step", "stage": "dpo", "step": 4})
        ledger.append({"kind": "resume", "size": at.size, "root": at.root})
    result = attest("ledger", "verify", path)
    assert "1, each from a state that it had" in result.stdout
    text = attest("ledger", "show", path).stdout
    assert "1 of them count no more" in text


def test_show(attest, run):
    result = attest("ledger", "show", run, "--format", "json")
    found = json.loads(result.stdout)
    assert found["kinds"] == {"stage": 2, "step": 8}
    assert found["stages"]["dpo"]["principles"] == {"refuse": 2, "tone": 2}
    assert found["stages"]["sft"]["loss"] == ["1.0000", "0.2500"]
    text = attest("ledger", "show", run).stdout
    assert text.startswith("NOT VERIFIED")
    assert "stage dpo: 4 steps on 2 samples (refuse 2, tone 2)" in text


def test_show_one_record(attest, run):
    text = attest("ledger", "show", run, "--record", "6").stdout
    assert "principle: refuse" in text
    assert attest("ledger", "show", run, "--record", "99").exit_code == 4


def test_show_cannot_be_made_to_drive_the_terminal(attest, tmp_path):
    path = tmp_path / "ledger"
    evil = {"kind": "step", "stage": "\x1b[31m", "principle": ["\x1b"], "samples": 1}
    with Ledger.create(path) as ledger:
        ledger.append({**evil, "loss": 7, "\x1b": 1})
        ledger.append({"kind": ["\x1b"], "stage": {}})
    for options in ([], ["--record", "0"]):
        result = attest("ledger", "show", path, *options)
        assert result.exit_code == 0, result.stderr
        assert "\x1b" not in result.stdout


def test_proof_of_one_record(attest, run, against, tmp_path):
    proof = tmp_path / "proof.json"
    result = attest("ledger", "prove", run, 6, *against, "--output", proof)
    assert result.exit_code == 0, result.stderr
    (run / "ledger.jsonl").unlink()
    result = attest("ledger", "check", proof, *against)
    assert result.exit_code == 0, result.stderr
    assert "principle: refuse" in result.stdout
    assert "PROVEN: a record of the ledger" in result.stdout


def test_proof_goes_through_a_pipe(attest, run, against):
    proof = attest("ledger", "prove", run, 0, *against).stdout
    result = attest("ledger", "check", "-", *against, "--format", "json", input=proof)
    assert json.loads(result.stdout)["record"]["kind"] == "stage"


def test_changed_record_proves_nothing(attest, run, against, tmp_path):
    proof = json.loads(attest("ledger", "prove", run, 6, *against).stdout)
    other = json.loads(attest("ledger", "prove", run, 7, *against).stdout)
    path = tmp_path / "proof.json"
    path.write_text(json.dumps({**proof, "record": other["record"], "seq": 7}))
    assert attest("ledger", "check", path, *against).exit_code == 1
    path.write_text("{}")
    assert attest("ledger", "check", path, *against).exit_code == 1


def test_proof_of_a_record_that_is_not_there(attest, run, against):
    assert attest("ledger", "prove", run, 99, *against).exit_code == 1


def test_merge(attest, tmp_path):
    paths = []
    for rank in range(2):
        paths.append(tmp_path / f"rank-{rank}.jsonl")
        with Ledger.create(paths[-1], rank=Rank(rank, 2)) as ledger:
            for step in range(3):
                ledger.append({"kind": "step", "stage": "sft", "step": step})
    out = tmp_path / "ledger.jsonl"
    result = attest("ledger", "merge", out, *paths[::-1], "--format", "json")
    assert result.exit_code == 0, result.stderr
    head = json.loads(result.stdout)["stages"]["sft"]
    assert head["treeSize"] == 7
    result = attest("ledger", "verify", out, "--format", "json")
    assert json.loads(result.stdout)["ranks"] == 2
    assert "ranks" in attest("ledger", "verify", out).stdout
    assert attest("ledger", "merge", tmp_path / "x", paths[0]).exit_code == 4
