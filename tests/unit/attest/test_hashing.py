"""Listing and hashing a model directory."""

import hashlib
import os
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from attest.digests import digest
from attest.errors import (
    ConfigurationError,
    EvidenceUnavailableError,
    FormatError,
)
from attest.hashing import (
    MANIFEST_NAME,
    SIGNATURE_NAME,
    ModelFile,
    hash_files,
    hash_tensors,
    ignored_files,
    scan_model,
    stat_fingerprint,
    tensor_files,
)
from attest.weights import TensorDigest, tensor_root

TENSORS = {
    "embed": np.arange(12, dtype=np.float32).reshape(3, 4),
    "layers.0.mlp": np.ones((2, 2), np.float16),
    "layers.1.mlp": np.zeros((2, 2), np.float16),
    "scale": np.array(3, np.int64),
    "unused": np.zeros((0, 5), np.float32),
}
CONTENT = {
    "config.json": b"{}",
    "model.safetensors": save(TENSORS),
    "tokenizer/vocab.txt": b"a\nb\n",
    "z.bin": b"",
}


def write(root, content):
    for name, data in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


@pytest.fixture
def model(tmp_path):
    return write(tmp_path / "model", CONTENT)


def names(root):
    return [file.name for file in scan_model(root)]


def test_scan(model):
    files = scan_model(model)
    assert [file.name for file in files] == sorted(CONTENT)
    assert [file.size for file in files] == [len(CONTENT[f.name]) for f in files]
    assert files[2] == ModelFile(
        "tokenizer/vocab.txt", model.resolve() / "tokenizer/vocab.txt", 4
    )


def test_order_is_that_of_utf8_bytes(model):
    write(model, {"\uff5e": b"", "\U0001f600": b"", "tokenizer.json": b""})
    assert names(model) == sorted(names(model), key=str.encode)
    # "." sorts before "/": the order is not that of a walk through the folders.
    assert names(model).index("tokenizer.json") < names(model).index(
        "tokenizer/vocab.txt"
    )


def test_where_the_directory_lies_has_no_effect(model, tmp_path, monkeypatch):
    expected = hash_files(scan_model(model))
    monkeypatch.chdir(model)
    assert hash_files(scan_model(Path())) == expected
    (tmp_path / "link").symlink_to(model)
    assert hash_files(scan_model(tmp_path / "link")) == expected
    renamed = model.rename(tmp_path / "other name")
    assert hash_files(scan_model(renamed)) == expected


def test_manifests_do_not_list_themselves(model):
    write(model, {MANIFEST_NAME: b"{}", SIGNATURE_NAME: b"{}"})
    assert names(model) == sorted(CONTENT)


def test_manifest_in_a_subfolder_is_a_file(model):
    write(model, {f"sub/{MANIFEST_NAME}": b"{}", f"sub/{SIGNATURE_NAME}": b"{}"})
    assert {f"sub/{MANIFEST_NAME}", f"sub/{SIGNATURE_NAME}"} < set(names(model))


@pytest.mark.parametrize(
    "name",
    [
        ".cache/huggingface/.gitignore",
        ".cache/huggingface/.gitignore.lock",
        ".cache/huggingface/CACHEDIR.TAG",
        ".cache/huggingface/trees/8fbc.json",
        ".cache/huggingface/download/model.safetensors.metadata",
        ".cache/huggingface/download/model.safetensors.lock",
        ".cache/huggingface/download/x.sub/y.incomplete",
        ".cache/huggingface/upload/config.json.metadata",
    ],
)
def test_download_metadata_is_set_apart(model, name):
    write(model, {name: b"x"})
    assert ignored_files(model) == (name,)
    assert names(model) == sorted(CONTENT)


@pytest.mark.parametrize(
    "name",
    [
        ".git/evil.safetensors",
        ".gitattributes",
        ".cache/huggingface/evil.safetensors",
        ".cache/huggingface/download/evil.safetensors",
        ".cache/huggingface/download/.metadata/evil.py",
        ".cache/huggingface/trees/evil.py",
        ".cache/other/x.metadata",
        "sub/.cache/huggingface/.gitignore",
        "modeling_x.py",
        "pytorch_model.bin",
        "x.metadata",
    ],
)
def test_everything_else_is_listed(model, name):
    write(model, {name: b"x"})
    assert name in names(model)
    assert ignored_files(model) == ()


def test_empty_directory(tmp_path):
    with pytest.raises(ConfigurationError, match="has no files"):
        scan_model(tmp_path)


def test_only_ignored_files(tmp_path):
    write(tmp_path, {MANIFEST_NAME: b"{}", ".cache/huggingface/CACHEDIR.TAG": b""})
    with pytest.raises(ConfigurationError, match="has no files"):
        scan_model(tmp_path)


def test_no_directory(tmp_path):
    with pytest.raises(ConfigurationError, match="No such file"):
        scan_model(tmp_path / "absent")


def test_file_instead_of_a_directory(model):
    with pytest.raises(ConfigurationError, match="not a directory"):
        scan_model(model / "config.json")


@pytest.mark.parametrize(
    "name", [b"back\\slash", b"not-utf8-\xff", b"new\nline", "bidi\u202e".encode()]
)
def test_name_is_refused(model, name):
    (model / os.fsdecode(name)).touch()
    with pytest.raises(FormatError, match="model directory: the name '"):
        scan_model(model)


def test_folder_name_is_refused(model):
    write(model, {"a\\b/c": b""})
    with pytest.raises(FormatError, match="backslash"):
        scan_model(model)


def test_fifo_is_refused(model):
    os.mkfifo(model / "pipe")
    with pytest.raises(FormatError, match="pipe is neither a file"):
        scan_model(model)


def test_socket_is_refused(model, monkeypatch):
    monkeypatch.chdir(model)  # a socket's path may have 108 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("sock")
        with pytest.raises(FormatError, match="sock is neither a file"):
            scan_model(model)


def test_link_to_a_device_is_refused(model):
    (model / "null").symlink_to("/dev/null")
    with pytest.raises(FormatError, match="null leaves the directory"):
        scan_model(model)


def test_link_inside_is_followed(model):
    (model / "alias.json").symlink_to("config.json")
    assert hash_files(scan_model(model))["alias.json"] == digest(b"{}")


def test_link_to_a_folder_is_refused(model):
    (model / "folder").symlink_to("tokenizer")
    with pytest.raises(FormatError, match="folder is neither a file"):
        scan_model(model)


@pytest.mark.parametrize("target", ["absent", "config.json/x"])
def test_dangling_link_is_refused(model, target):
    (model / "link").symlink_to(target)
    with pytest.raises(FormatError, match="the link link leads to no file"):
        scan_model(model)


def test_link_that_cannot_be_followed(model):
    (model / "link").symlink_to("x" * 300)
    with pytest.raises(EvidenceUnavailableError, match="link: cannot be read"):
        scan_model(model)


def test_hash_files(model):
    assert hash_files(scan_model(model)) == {
        name: "sha256:" + hashlib.sha256(data).hexdigest()
        for name, data in CONTENT.items()
    }


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_progress_adds_up(model, threads):
    write(model, {"large.bin": os.urandom(3_000_000)})
    files = scan_model(model)
    total = sum(file.size for file in files)
    calls, at_once = [], threading.Semaphore(1)

    def progress(count):
        assert at_once.acquire(blocking=False)
        calls.append(count)
        at_once.release()

    found = hash_files(files, progress=progress, threads=threads)
    assert sum(calls) == total
    assert max(calls) <= 1 << 20
    assert found["large.bin"] == digest((model / "large.bin").read_bytes())


def test_progress_of_tensors_adds_up(model):
    write(model, {"more.safetensors": save({"x": np.zeros(700_000, np.float32)})})
    calls = []
    hash_tensors(scan_model(model), progress=calls.append)
    weights = [f for f in scan_model(model) if f.name.endswith(".safetensors")]
    assert sum(calls) == sum(file.size for file in weights)


def test_hash_tensors(model):
    found = hash_tensors(scan_model(model))
    kinds = {"float32": "F32", "float16": "F16", "int64": "I64"}
    assert found == tuple(
        TensorDigest(name, kinds[str(a.dtype)], a.shape, digest(a.tobytes()))
        for name, a in sorted(TENSORS.items())
    )


def test_tensor_files(model):
    write(model, {"more.safetensors": save({"x": np.zeros(1)})})
    found = tensor_files(scan_model(model))
    assert found == dict.fromkeys(TENSORS, "model.safetensors") | {
        "x": "more.safetensors"
    }


def test_no_safetensors(tmp_path):
    write(tmp_path, {"config.json": b"{}"})
    files = scan_model(tmp_path)
    assert hash_tensors(files) == ()
    assert tensor_files(files) == {}


def test_resharded_save_has_the_same_root(model, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    order = sorted(TENSORS, reverse=True)
    save_file(
        {name: TENSORS[name] for name in order[:2]},
        other / "b.safetensors",
        metadata={"format": "pt"},
    )
    save_file({name: TENSORS[name] for name in order[2:]}, other / "a.safetensors")
    roots = {tensor_root(hash_tensors(scan_model(root))) for root in (model, other)}
    assert len(roots) == 1


def test_fingerprint(model):
    before = stat_fingerprint(scan_model(model))
    assert stat_fingerprint(reversed(scan_model(model))) == before
    os.utime(model / "config.json", ns=(0, 0))
    touched = stat_fingerprint(scan_model(model))
    write(model, {"new": b""})
    assert len({before, touched, stat_fingerprint(scan_model(model))}) == 3


def test_fingerprint_of_a_missing_file(model):
    files = scan_model(model)
    (model / "z.bin").unlink()
    with pytest.raises(EvidenceUnavailableError, match="bin: cannot be read"):
        stat_fingerprint(files)


def test_hash_of_a_missing_file(model):
    files = scan_model(model)
    (model / "z.bin").unlink()
    with pytest.raises(EvidenceUnavailableError, match="bin: cannot be read"):
        hash_files(files)


def test_failure_stops_the_other_workers(model):
    files = scan_model(model)
    (model / files[0].name).unlink()
    done = []
    with pytest.raises(EvidenceUnavailableError, match="json: cannot be read"):
        hash_files(files, progress=done.append, threads=1)
    assert done == []


def test_error_in_progress_reaches_the_caller(model):
    def progress(count):
        raise KeyError(count)

    with pytest.raises(KeyError):
        hash_tensors(scan_model(model), progress=progress)
