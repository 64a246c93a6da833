import json
import shutil
import time

import numpy as np
import pytest
from fakes.run import make_run, profile
from fakes.world import make_world
from safetensors.numpy import save_file

from attest.digests import digest
from attest.dmverity import listed_volume
from attest.hashing import hash_tensors, scan_model
from attest.keys import PublicKey
from attest.manifest import open_manifest
from attest.verity import listed_verity, verity_digest
from attest.weights import tensor_root

MANIFEST = "training-manifest.json"
TRAINING = {
    "model": {"name": "toy", "version": "2"},
    "constitution": {"id": "c", "version": "1", "digest": digest(b"c")},
    "principles": [
        {
            "id": "refuse",
            "class": "safety-critical",
            "routing": {"band": {"from": 500, "to": 1000}, "layers": [3, 4]},
            "profile": profile(layers=["0.1", "0", "0.9"], inBand="0.85"),
        },
        {"id": "evil\x1b[31m", "class": "[red]adaptable[/]"},
    ],
    "training": {"stages": [{"method": "sft"}]},
    "evaluation": [{"id": "refuse", "after": "0.92"}],
    "limits": ["one seed"],
}


def public(keys, name="authority"):
    return PublicKey.from_bytes((keys / f"{name}.pub.pem").read_bytes())


def opened(path, keys):
    return open_manifest(path.read_bytes(), [public(keys)])


@pytest.fixture
def statement(tmp_path):
    path = tmp_path / "training.json"
    path.write_text(json.dumps(TRAINING))
    return path


@pytest.fixture
def run_folder(tmp_path, model):
    """A run whose model is the directory `model`."""
    root = tensor_root(hash_tensors(scan_model(model)))
    return make_run(tmp_path / "run", weights=root)


@pytest.fixture
def sign(attest, model, keys):
    def sign(*arguments, key="authority"):
        path = keys / f"{key}.key.pem"
        return attest("manifest", "sign", model, "--key", path, *arguments)

    return sign


@pytest.fixture
def verify(attest, signed, keys):
    def verify(*arguments, authority="authority", manifest=signed / MANIFEST):
        path = keys / f"{authority}.pub.pem"
        return attest("manifest", "verify", manifest, "--authority", path, *arguments)

    return verify


def test_sign_takes_the_account_of_the_run(sign, model, keys, run_folder):
    result = sign("--run", run_folder.path)
    assert result.exit_code == 0, result.stderr
    assert "10 records, 2 stages" in result.stdout
    manifest = opened(model / MANIFEST, keys)
    assert (manifest.model_name, manifest.model_version) == ("toy", "2")
    for member, value in run_folder.statement.items():
        assert manifest.predicate[member] == value
    assert MANIFEST not in manifest.subjects
    assert "model.safetensors" in manifest.subjects
    assert manifest.not_before <= time.time() < manifest.not_after
    assert not manifest.free_sharding


def edit_ledger(folder):
    path = folder.path / "ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b"refuse-00", b"refuse-01", 1))


def cut_ledger(folder):
    path = folder.path / "ledger.jsonl"
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (edit_ledger, "ledger_edited: the change lies in records 0 to 4"),
        (cut_ledger, "ledger_cut: record 9 is torn"),
        (
            lambda f: (f.path / "profile.json").unlink(),
            "run_mismatch: profile.json: expected",
        ),
        (
            lambda f: f.resistance(met=True, suite="mild"),
            "run_mismatch: suite: expected mild",
        ),
    ],
)
def test_run_that_does_not_fit_is_a_definite_no(
    sign, model, run_folder, spoil, problem
):
    code, _, words = problem.partition(": ")
    spoil(run_folder)
    result = sign("--run", run_folder.path, "--format", "json")
    assert result.exit_code == 1
    error = json.loads(result.stdout)["error"]
    assert error["code"] == code
    assert words in error["message"]
    assert error["hint"]
    assert not (model / MANIFEST).exists()


def test_other_weights_than_the_runs_are_a_definite_no(sign, model, run_folder):
    _flip(model / "model.safetensors")
    result = sign("--run", run_folder.path)
    assert result.exit_code == 1
    assert "model directory, tensor root" in result.stderr
    assert not (model / MANIFEST).exists()


@pytest.fixture
def short_of_ten(tmp_path, model):
    root = tensor_root(hash_tensors(scan_model(model)))
    return lambda on_miss: (
        make_run(tmp_path / "short", weights=root, steps=4, on_miss=on_miss).path
    )


def test_missed_requirement_stops_the_signing(sign, model, short_of_ten):
    result = sign("--run", short_of_ten("fail"), "--format", "json")
    assert result.exit_code == 1
    error = json.loads(result.stdout)["error"]
    assert error["code"] == "shortfall"
    assert "'refuse': expected at least 10 steps" in error["message"]
    assert "found 4 under 'full'" in error["message"]
    assert "--sign-shortfall refuse" in error["hint"]
    assert not (model / MANIFEST).exists()


def test_shortfall_is_signed_as_such(sign, model, keys, short_of_ten):
    result = sign("--run", short_of_ten("fail"), "--sign-shortfall", "refuse")
    assert result.exit_code == 0, result.stderr
    assert "note: shortfall: principle 'refuse'" in result.stderr
    [refuse, _] = opened(model / MANIFEST, keys).predicate["principles"]
    assert refuse["resistance"]["shortfall"] == "not-met"
    assert refuse["resistance"]["met"] is False


@pytest.mark.parametrize("on_miss", ["warn", "record"])
def test_softer_requirement_is_signed_and_recorded(
    sign, model, keys, short_of_ten, on_miss
):
    result = sign("--run", short_of_ten(on_miss))
    assert result.exit_code == 0, result.stderr
    assert ("note: shortfall" in result.stderr) is (on_miss == "warn")
    [refuse, _] = opened(model / MANIFEST, keys).predicate["principles"]
    assert refuse["resistance"]["shortfall"] == "not-met"


def test_stale_permission_for_a_shortfall_is_refused(sign, model, run_folder):
    result = sign("--run", run_folder.path, "--sign-shortfall", "refuse")
    assert result.exit_code == 4
    assert not (model / MANIFEST).exists()


def test_sign_allows_what_the_options_say(sign, model, keys, tmp_path):
    prompt = tmp_path / "prompt.txt"
    prompt.write_bytes(b"Be kind.\r\n ")
    result = sign(
        *("--name", "m", "--version", "1", "--delegate", keys / "issuer.pub.pem"),
        *("--dtype", "bfloat16", "--dtype", "float16", "--engine", "other"),
        *("--system-prompt", f"house={prompt}", "--free-sharding"),
        *("--valid-days", "7"),
    )
    assert result.exit_code == 0, result.stderr
    manifest = opened(model / MANIFEST, keys)
    assert manifest.runtime.dtypes == ("bfloat16", "float16")
    assert manifest.runtime.engines == ("other",)
    assert manifest.runtime.system_prompts == {digest(b"Be kind.\r\n "): "house"}
    assert manifest.free_sharding
    assert manifest.not_after - manifest.not_before == 7 * 24 * 3600
    [delegation] = manifest.delegations
    assert delegation.key == public(keys, "issuer")


def test_sign_lists_fs_verity_digests_when_asked(sign, model, keys):
    result = sign("--name", "m", "--version", "1", "--fs-verity")
    assert result.exit_code == 0, result.stderr
    manifest = opened(model / MANIFEST, keys)
    listed = listed_verity(manifest.predicate)
    assert listed.keys() == manifest.subjects.keys()
    with (model / "config.json").open("rb") as file:
        assert listed["config.json"] == verity_digest(file)


def test_sign_states_the_volume_when_given(sign, model, keys):
    result = sign("--name", "m", "--version", "1", "--dm-verity", "ab" * 32)
    assert result.exit_code == 0, result.stderr
    manifest = opened(model / MANIFEST, keys)
    assert listed_volume(manifest.predicate).root_hash == "sha256:" + "ab" * 32


def test_root_hash_in_another_form_is_not_signed(sign, model):
    result = sign("--name", "m", "--version", "1", "--dm-verity", "AB" * 32)
    assert result.exit_code != 0
    assert "64 lower-case hex digits" in result.stderr
    assert not (model / MANIFEST).exists()


def test_sign_serves_in_the_stored_dtype_by_default(signed, keys):
    runtime = opened(signed / MANIFEST, keys).runtime
    assert (runtime.engines, runtime.dtypes) == (("vllm",), ("float32",))


def test_newline_at_the_end_of_a_prompt_is_mentioned(sign, tmp_path):
    (tmp_path / "p").write_text("Be kind.\n")
    options = ["--name", "m", "--version", "1"]
    result = sign(*options, "--system-prompt", f"house={tmp_path / 'p'}")
    assert "ends with a newline" in result.stderr


def test_every_key_signs(sign, model, keys):
    extra = ["--key", keys / "issuer.key.pem"]
    result = sign("--name", "m", "--version", "1", *extra, "--format", "json")
    assert len(json.loads(result.stdout)["signedBy"]) == 2
    both = [public(keys), public(keys, "issuer")]
    assert open_manifest((model / MANIFEST).read_bytes(), both, threshold=2)


def test_sign_overwrites_nothing(sign, signed):
    before = (signed / MANIFEST).read_bytes()
    result = sign("--name", "m", "--version", "2")
    assert result.exit_code == 4
    assert "--output" in result.stderr
    assert (signed / MANIFEST).read_bytes() == before


def test_sign_elsewhere(sign, model, tmp_path):
    output = tmp_path / "m.json"
    result = sign("--name", "m", "--version", "1", "--output", output)
    assert result.exit_code == 0
    assert output.exists()
    assert not (model / MANIFEST).exists()


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--name", "m"],
        ["--run", "a", "--statement", "b"],
        ["--run", "a", "--name", "m"],
        ["--name", "m", "--version", "1", "--system-prompt", "no-file"],
        ["--name", "m", "--version", "1", "--valid-days", "0"],
    ],
)
def test_sign_with_unclear_options_is_usage(sign, model, options):
    assert sign(*options).exit_code == 2
    assert not (model / MANIFEST).exists()


def test_prompt_that_is_not_text_is_refused(sign, tmp_path):
    (tmp_path / "p").write_bytes(b"\xff\xfe")
    options = ["--name", "m", "--version", "1"]
    result = sign(*options, "--system-prompt", f"house={tmp_path / 'p'}")
    assert result.exit_code == 4
    assert "is not UTF-8 text" in result.stderr


def test_dtype_is_asked_for_where_the_weights_do_not_tell(sign, model):
    weights = {"w": np.zeros((4, 4), dtype=np.int8)}
    save_file(weights, model / "model.safetensors")
    options = ["--name", "m", "--version", "1"]
    result = sign(*options)
    assert result.exit_code == 4
    assert "--dtype bfloat16" in result.stderr
    assert sign(*options, "--dtype", "bfloat16").exit_code == 0


def test_unwritable_output_is_configuration(sign, tmp_path):
    options = ["--name", "m", "--version", "1"]
    result = sign(*options, "--output", tmp_path / "nowhere" / "m.json")
    assert result.exit_code == 4
    assert "--output" in result.stderr


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ("{", "syntax error"),
        ('{"model": {}, "model": {}}', "same key twice"),
        ("{}", "predicate.model"),
        ('{"model": {"name": "m", "version": "1", "score": 0.5}}', "is a float"),
        ('{"model": {"name": "m", "version": "1"}, "validity": {}}', "'validity'"),
    ],
)
def test_unusable_training_statement_signs_nothing(
    sign, model, tmp_path, training, words
):
    (tmp_path / "training.json").write_text(training)
    result = sign("--statement", tmp_path / "training.json")
    assert result.exit_code == 4
    assert words in result.stderr
    assert not (model / MANIFEST).exists()


def test_sign_without_tensors_is_refused(sign, model):
    (model / "model.safetensors").unlink()
    result = sign("--name", "m", "--version", "1", "--dtype", "float32")
    assert result.exit_code == 4
    assert "no tensors" in result.stderr


def test_missing_key_says_how_to_make_one(sign, keys):
    result = sign("--name", "m", "--version", "1", key="absent")
    assert result.exit_code == 4
    assert f"attest keys new {keys}" in result.stderr


def test_key_that_others_can_read_is_refused(sign, keys):
    (keys / "authority.key.pem").chmod(0o644)
    result = sign("--name", "m", "--version", "1")
    assert result.exit_code == 4
    assert "chmod 600" in result.stderr


def test_unknown_signer_scheme_is_refused(attest, model):
    options = ["--key", "carrier-pigeon:home", "--name", "m", "--version", "1"]
    assert attest("manifest", "sign", model, *options).exit_code == 4


def test_private_key_as_delegate_is_refused(sign, keys):
    options = ["--name", "m", "--version", "1"]
    result = sign(*options, "--delegate", keys / "issuer.key.pem")
    assert result.exit_code == 4
    assert "public" in result.stderr


def test_verify_says_what_it_checked(verify, signed):
    result = verify("--weights", signed)
    assert result.exit_code == 0
    assert "not checked" not in result.stdout
    assert "PROVEN: signed by who you trust: m 1, manifest sha256:" in result.stdout
    assert "not proven: that a server loads these weights" in result.stdout


def test_verify_without_weights_says_so(verify):
    result = verify()
    assert result.exit_code == 0
    assert "not checked  weights" in result.stdout
    assert json.loads(verify("--format", "json").stdout)["weights"] == "not checked"


def test_verify_reads_stdin(attest, signed, keys):
    options = ["--authority", keys / "authority.pub.pem"]
    manifest = (signed / MANIFEST).read_bytes()
    assert attest("manifest", "verify", "-", *options, input=manifest).exit_code == 0
    assert attest("manifest", "verify", "-", *options, input=b"").exit_code == 4


def test_wrong_authority_is_false(verify, keys):
    result = verify("--format", "json", authority="issuer")
    assert result.exit_code == 1
    error = json.loads(result.stdout)["error"]
    assert error["code"] == "signature"
    assert "0 of the trusted keys signed" in error["message"]
    assert public(keys, "issuer").thumbprint in error["hint"]


@pytest.mark.parametrize("at", ["2001-01-01T00:00:00Z", "2099-01-01T00:00:00Z"])
def test_manifest_outside_its_validity_is_false(verify, at):
    result = verify("--at", at, "--format", "json")
    assert result.exit_code == 1
    error = json.loads(result.stdout)["error"]
    assert error["code"] == "expired"
    assert at in error["message"]
    assert "current manifest" in error["hint"]


@pytest.mark.parametrize("at", ["yesterday", "2026-01-31", "1800000000"])
def test_unreadable_time_is_usage(verify, at):
    assert verify("--at", at).exit_code == 2


def test_threshold_counts_distinct_authorities(verify, keys):
    again = ["--authority", keys / "authority.pub.pem"]
    assert verify("--threshold", "2", *again).exit_code == 4
    other = ["--authority", keys / "issuer.pub.pem"]
    assert verify("--threshold", "2", *other).exit_code == 1
    assert verify("--threshold", "1", *other).exit_code == 0


def _flip(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda m: _flip(m / "model.safetensors"), "changed model.safetensors"),
        (lambda m: (m / "tokenizer.json").unlink(), "missing tokenizer.json"),
        (lambda m: (m / "extra.bin").write_bytes(b"x"), "extra extra.bin"),
    ],
)
def test_other_weights_are_false_and_named(verify, signed, tmp_path, spoil, found):
    member, name = found.split()
    copy = shutil.copytree(signed, tmp_path / "copy")
    spoil(copy)
    result = verify("--weights", copy, "--format", "json")
    assert result.exit_code == 1
    error = json.loads(result.stdout)["error"]
    assert error["code"] == "manifest_mismatch"
    assert error[member] == [name]
    assert name in error["message"]
    assert "attest weights digest" in error["hint"]


def test_changed_tensor_is_named_too(verify, signed, tmp_path):
    copy = shutil.copytree(signed, tmp_path / "copy")
    _flip(copy / "model.safetensors")
    assert "tensors changed: model.norm.weight" in verify("--weights", copy).stderr


def test_truncated_weights_are_false(verify, signed, tmp_path):
    copy = shutil.copytree(signed, tmp_path / "copy")
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    result = verify("--weights", copy)
    assert result.exit_code == 1
    assert "model.safetensors" in result.stderr


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"{" * 100_000])
def test_verify_of_something_else_is_false(verify, tmp_path, content):
    (tmp_path / "m").write_bytes(content)
    assert verify(manifest=tmp_path / "m").exit_code == 1


def test_missing_manifest_is_configuration(verify, tmp_path):
    result = verify(manifest=tmp_path / "absent")
    assert result.exit_code == 4
    assert "No such file" in result.stderr


def test_show_says_that_nothing_is_verified(attest, signed):
    result = attest("manifest", "show", signed / MANIFEST)
    assert result.stdout.startswith("NOT VERIFIED")
    shown = attest("manifest", "show", signed / MANIFEST, "--format", "json").stdout
    assert json.loads(shown)["verified"] is False


def test_show_has_it_all(sign, attest, model, statement, keys):
    sign("--statement", statement, "--delegate", keys / "issuer.pub.pem")
    text = attest("manifest", "show", model / MANIFEST).stdout
    for words in (
        *("toy 2", digest(b"c"), "safety-critical", "50 % to 100 %", "0.85", "sft"),
        *("one seed", "not measured", public(keys, "issuer").thumbprint),
    ):
        assert words in text


def test_show_cannot_be_made_to_drive_the_terminal(sign, attest, model, statement):
    sign("--statement", statement)
    text = attest("manifest", "show", model / MANIFEST).stdout
    assert "\x1b" not in text
    assert r"evil\x1b[31m" in text
    assert "[red]adaptable[/]" in text


def test_show_hides_no_prompt_of_the_same_name(attest, tmp_path):
    prompts = [{"name": "house", "digest": digest(text)} for text in (b"a", b"b")]
    world = make_world(predicate={"runtime": {"systemPrompts": prompts}})
    (tmp_path / "m").write_bytes(world.envelope)
    text = attest("manifest", "show", tmp_path / "m").stdout
    assert all(prompt["digest"] in text for prompt in prompts)


def test_show_cuts_a_flood_of_principles(attest, tmp_path):
    principles = [{"id": f"p{i}"} for i in range(100)] + ["no object"]
    world = make_world(predicate={"principles": principles})
    (tmp_path / "m").write_bytes(world.envelope)
    assert "and 37 more" in attest("manifest", "show", tmp_path / "m").stdout


@pytest.mark.parametrize("payload", ["not base64!", "e30", "W10="])
def test_show_of_something_else_is_false(attest, tmp_path, payload):
    envelope = {"payload": payload, "signatures": [1]}
    (tmp_path / "m").write_text(json.dumps(envelope))
    assert attest("manifest", "show", tmp_path / "m").exit_code == 1
    (tmp_path / "m").write_text("{}")
    assert attest("manifest", "show", tmp_path / "m").exit_code == 1
