import hashlib
import json

import pytest

from attest.hashing import hash_tensors, scan_model
from attest.weights import tensor_root


def test_digests_are_those_of_sha256sum(attest, model):
    result = attest("weights", "digest", model)
    assert result.exit_code == 0
    for path in model.iterdir():
        line = f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        assert line in result.stdout
    assert tensor_root(hash_tensors(scan_model(model))) in result.stdout


def test_json_stands_alone_on_stdout(attest, model):
    result = attest("weights", "digest", model, "--tensors", "--format", "json")
    said = json.loads(result.stdout)
    tensors = hash_tensors(scan_model(model))
    assert said["tensorTree"] == {
        "alg": "rfc6962-sha256",
        "root": tensor_root(tensors),
        "count": len(tensors),
    }
    assert [tensor["digest"] for tensor in said["tensors"]] == [
        tensor.sha256 for tensor in tensors
    ]
    assert result.stderr == ""


def test_tensors_are_listed_on_request(attest, model):
    assert "lm_head.weight" not in attest("weights", "digest", model).stdout
    listed = attest("weights", "digest", model, "--tensors").stdout
    assert "F32[261, 64]  lm_head.weight" in listed


def test_download_metadata_is_reported(attest, model):
    metadata = model / ".cache" / "huggingface" / "download" / "config.json.metadata"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("x")
    assert "left out: 1 files" in attest("weights", "digest", model).stdout


def test_directory_without_tensors_has_no_root(attest, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    result = attest("weights", "digest", tmp_path)
    assert result.exit_code == 0
    assert "no tensor root" in result.stdout


def test_quiet_prints_nothing(attest, model):
    result = attest("weights", "digest", model, "--quiet")
    assert (result.exit_code, result.output) == (0, "")


def test_truncated_safetensors_is_named(attest, model):
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    result = attest("weights", "digest", model, "--format", "json")
    assert result.exit_code == 1
    error = json.loads(result.stdout)["error"]
    assert error["code"] == "format"
    assert error["message"].startswith("model.safetensors: safetensors:")
    assert "copy the file again" in error["hint"]


@pytest.mark.parametrize("name", ["nowhere", "config.json"])
def test_no_directory_is_configuration(attest, model, name):
    result = attest("weights", "digest", model / name)
    assert result.exit_code == 4
    assert "model directory" in result.stderr


def test_unreadable_file_cannot_tell(attest, model, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.preadv", refuse)
    result = attest("weights", "digest", model)
    assert result.exit_code == 3
    assert "cannot be read" in result.stderr


def test_escape_sequence_in_a_name_is_spelt_out(attest, model):
    (model / "a\x1b[2Jb").write_text("x")
    result = attest("weights", "digest", model)
    assert result.exit_code == 1
    assert "\x1b" not in result.output
    assert r"a\x1b[2Jb" in result.stderr
