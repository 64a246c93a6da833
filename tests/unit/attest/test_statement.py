import json
from hashlib import sha256

import pytest

from attest.digests import digest
from attest.errors import ConfigurationError, FormatError
from attest.keys import PrivateKey
from attest.manifest import open_manifest, sign_statement
from attest.statement import Terms, build_predicate, serving_dtype
from attest.weights import TensorDigest, tensor_root

NOW = 1_800_000_000
DAY = 24 * 3600
TRAINING = {"model": {"name": "m", "version": "1"}, "limits": ["small"]}
SUBJECTS = {
    name: digest(name.encode())
    for name in ("chat_template.jinja", "config.json", "tokenizer.json")
}


def tensor(name: str = "w", dtype: str = "F32", shape=(2, 2)) -> TensorDigest:
    return TensorDigest(
        name, dtype, shape, "sha256:" + sha256(name.encode()).hexdigest()
    )


def build(training=TRAINING, tensors=None, **terms):
    return build_predicate(
        training,
        subjects=SUBJECTS,
        tensors=tensors or [tensor("a"), tensor("b")],
        terms=Terms(not_before=NOW, **terms),
    )


def test_a_verifier_reads_what_was_built():
    authority, issuer = PrivateKey.generate(), PrivateKey.generate()
    predicate = build(
        dtypes=["float32"],
        delegates=[issuer.public],
        system_prompts={"house": "Be brief.\n"},
        free_sharding=True,
    )
    envelope = sign_statement(SUBJECTS, predicate, [authority])
    manifest = open_manifest(envelope, [authority.public])
    assert manifest.subjects == SUBJECTS
    assert manifest.tensors == (tensor("a"), tensor("b"))
    assert manifest.tensor_root == tensor_root([tensor("a"), tensor("b")])
    assert manifest.free_sharding
    assert manifest.runtime.engines == ("vllm",)
    assert manifest.runtime.dtypes == ("float32",)
    assert manifest.runtime.system_prompts == {digest(b"Be brief.\n"): "house"}
    assert manifest.issuers(NOW + 365 * DAY) == (issuer.public,)
    assert (manifest.not_before, manifest.not_after) == (NOW, NOW + 365 * DAY)
    assert manifest.constitution is None


def test_nothing_is_allowed_that_was_not_said():
    runtime = build()["runtime"]
    assert runtime["dtypes"] == runtime["quantizations"] == runtime["adapters"] == []
    assert "sharding" not in build()["weights"]


def test_runtime_names_the_files_that_shape_a_prompt():
    runtime = build()["runtime"]
    assert runtime["chatTemplate"] == SUBJECTS["chat_template.jinja"]
    assert runtime["tokenizer"] == SUBJECTS["tokenizer.json"]
    assert "generationConfig" not in runtime


@pytest.mark.parametrize("member", ["constituton", "weights", "runtime", "validity"])
def test_a_run_cannot_speak_for_the_signer(member):
    with pytest.raises(ConfigurationError, match=member) as caught:
        build({**TRAINING, member: {}})
    assert "constitution" in caught.value.hint


@pytest.mark.parametrize("days", [0, -1, 3651])
def test_validity_is_bounded(days):
    with pytest.raises(ConfigurationError, match="1 to 3650 days"):
        build(valid_days=days)


def test_a_model_without_tensors_is_refused():
    with pytest.raises(FormatError, match="no tensors"):
        build_predicate(
            TRAINING, subjects=SUBJECTS, tensors=[], terms=Terms(not_before=NOW)
        )


def test_a_huge_model_is_held_by_the_root_alone(monkeypatch):
    monkeypatch.setattr("attest.statement.MAX_LISTED_TENSORS", 1)
    weights = build()["weights"]
    assert weights["tensorTree"]["count"] == 2
    assert "tensors" not in weights


def test_twenty_thousand_tensors_fit_an_envelope():
    tensors = [tensor(f"model.layers.{i}.mlp.experts.gate") for i in range(20_000)]
    envelope = sign_statement(SUBJECTS, build(tensors=tensors), [PrivateKey.generate()])
    assert json.loads(envelope)["payloadType"]


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ([tensor("w", "BF16", (9, 9)), tensor("norm", "F32", (9,))], "bfloat16"),
        ([tensor("w", "F8_E4M3", (9, 9)), tensor("norm", "F32", (9,))], None),
        ([tensor("w", "F16")], "float16"),
        ([], None),
    ],
)
def test_serving_dtype_is_that_of_most_elements(tensors, expected):
    assert serving_dtype(tensors) == expected
