"""Somebody who can write to the disk puts other weights where the signed ones were."""

import json
import os
import struct

import numpy as np
import pytest
from safetensors.numpy import save

from attest.errors import EvidenceUnavailableError, FormatError
from attest.hashing import (
    hash_files,
    hash_tensors,
    scan_model,
    stat_fingerprint,
    tensor_files,
)
from attest.weights import tensor_root

# More than one read, so that a change can come between two of them.
SIGNED = save({"w": np.zeros(600_000, np.float32)})
EVIL = save({"w": np.ones(600_000, np.float32)})


@pytest.fixture
def plain(tmp_path):
    root = tmp_path / "plain"
    root.mkdir()
    (root / "config.json").write_bytes(b"{}")
    (root / "model.safetensors").write_bytes(SIGNED)
    # Long ago, so that a write now shows in the times however coarse the clock is.
    os.utime(root / "model.safetensors", ns=(0, 0))
    return root


@pytest.fixture
def snapshot(tmp_path):
    """The layout of the Hugging Face cache."""
    cache = tmp_path / "models--org--name"
    root = cache / "snapshots" / "5f0b02c75b57c5855da9ae460ce51323ea669d8a"
    (root / "onnx").mkdir(parents=True)
    (cache / "blobs").mkdir()
    for blob, data in (("a1", b"{}"), ("b2", SIGNED)):
        (cache / "blobs" / blob).write_bytes(data)
    (root / "config.json").symlink_to("../../blobs/a1")
    (root / "model.safetensors").symlink_to("../../blobs/b2")
    (root / "onnx" / "config.json").symlink_to("../../../blobs/a1")
    return root


def weights(root):
    return next(f for f in scan_model(root) if f.name == "model.safetensors")


def forged(header, data):
    text = header if isinstance(header, str) else json.dumps(header)
    return struct.pack("<Q", len(text)) + text.encode() + data


def test_snapshot_equals_a_plain_copy(plain, snapshot):
    (plain / "onnx").mkdir()
    (plain / "onnx" / "config.json").write_bytes(b"{}")
    assert hash_files(scan_model(snapshot)) == hash_files(scan_model(plain))


def test_blob_overwritten_under_its_name(snapshot):
    signed = hash_files(scan_model(snapshot))
    fingerprint = stat_fingerprint(scan_model(snapshot))
    (snapshot / "../../blobs/b2").write_bytes(EVIL)
    found = hash_files(scan_model(snapshot))
    assert {name for name in signed if found[name] != signed[name]} == {
        "model.safetensors"
    }
    assert stat_fingerprint(scan_model(snapshot)) != fingerprint


def test_snapshot_link_turned_to_another_blob(snapshot):
    (snapshot / "../../blobs/c3").write_bytes(EVIL)
    signed = hash_files(scan_model(snapshot))
    fingerprint = stat_fingerprint(scan_model(snapshot))
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to("../../blobs/c3")
    assert stat_fingerprint(scan_model(snapshot)) != fingerprint
    assert hash_files(scan_model(snapshot)) != signed


@pytest.mark.parametrize("target", ["../../../evil", "../../evil", "../other/evil"])
def test_link_out_of_snapshot_and_blobs(snapshot, target):
    (snapshot.parent / "other").mkdir()
    evil = snapshot / target
    evil.write_bytes(EVIL)
    (snapshot / "extra.safetensors").symlink_to(target)
    with pytest.raises(FormatError, match="leaves the directory"):
        scan_model(snapshot)


def test_blobs_that_lie_elsewhere(snapshot, tmp_path):
    (snapshot / "../../blobs").rename(tmp_path / "elsewhere")
    (snapshot / "../../blobs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FormatError, match="leaves the directory"):
        scan_model(snapshot)


def test_link_out_of_a_plain_directory(plain):
    (plain.parent / "blobs").mkdir()
    (plain.parent / "blobs" / "evil").write_bytes(EVIL)
    (plain / "extra.safetensors").symlink_to("../blobs/evil")
    with pytest.raises(FormatError, match="leaves the directory"):
        scan_model(plain)


def test_folder_that_is_a_link_out(plain, snapshot):
    (plain / "more").symlink_to(snapshot)
    with pytest.raises(FormatError, match="more leaves the directory"):
        scan_model(plain)


def test_links_in_a_circle(plain):
    (plain / "a").symlink_to("b")
    (plain / "b").symlink_to("a")
    with pytest.raises(FormatError, match="the link a leads to no file"):
        scan_model(plain)


@pytest.mark.parametrize("target", [".", "..", "../plain"])
def test_folder_inside_itself(plain, target):
    (plain / "loop").symlink_to(target)
    with pytest.raises(FormatError, match="loop"):
        scan_model(plain)


def test_file_replaced_after_the_scan(plain):
    file = weights(plain)
    file.path.unlink()
    file.path.write_bytes(EVIL)
    # What counts is what is there now; the manifest then says no.
    assert hash_files([file]) == hash_files([weights(plain)])


@pytest.mark.parametrize("read", [hash_files, hash_tensors, tensor_files])
def test_file_of_another_size_after_the_scan(plain, read):
    file = weights(plain)
    file.path.write_bytes(EVIL + b"x")
    with pytest.raises(EvidenceUnavailableError, match="changed since it was listed"):
        read([file])


@pytest.mark.parametrize("read", [hash_files, hash_tensors, tensor_files])
def test_link_put_there_after_the_scan(plain, tmp_path, read):
    file = weights(plain)
    (tmp_path / "evil").write_bytes(SIGNED)
    file.path.unlink()
    file.path.symlink_to(tmp_path / "evil")
    with pytest.raises(EvidenceUnavailableError, match="cannot be read"):
        read([file])


@pytest.mark.parametrize("read", [hash_files, hash_tensors, tensor_files])
def test_fifo_put_there_after_the_scan(plain, read):
    file = weights(plain)
    file.path.unlink()
    os.mkfifo(file.path)  # to open it for reading alone would wait for ever
    with pytest.raises(EvidenceUnavailableError, match="changed since it was listed"):
        read([file])


@pytest.mark.parametrize("read", [hash_files, hash_tensors])
def test_file_written_while_being_read(plain, read):
    file = weights(plain)

    def write(_):
        with file.path.open("r+b") as handle:
            handle.write(EVIL)

    with pytest.raises(EvidenceUnavailableError, match="changed while being read"):
        read([file], progress=write)


@pytest.mark.parametrize("read", [hash_files, hash_tensors])
def test_file_cut_while_being_read(plain, read):
    file = weights(plain)
    with pytest.raises(EvidenceUnavailableError, match="changed while being read"):
        read([file], progress=lambda _: os.truncate(file.path, 1000), threads=1)


def test_directory_swapped_under_an_open_file(plain, tmp_path):
    file = weights(plain)
    expected = hash_files([file])
    moved = []

    def swap(_):
        if not moved:
            moved.append(plain.rename(tmp_path / "moved"))
            plain.mkdir()
            file.path.write_bytes(EVIL)

    # The bytes come from the file that was opened, whatever its path names now.
    assert hash_files([file], progress=swap) == expected


@pytest.mark.parametrize("size", [0, 7, 8, 40, len(SIGNED) - 1])
def test_truncated_safetensors(plain, size):
    (plain / "model.safetensors").write_bytes(SIGNED[:size])
    with pytest.raises(FormatError, match="safetensors: safetensors"):
        hash_tensors(scan_model(plain))


def test_bytes_hidden_behind_the_tensors(plain):
    (plain / "model.safetensors").write_bytes(SIGNED + b"hidden")
    with pytest.raises(FormatError, match="the tensors end at"):
        hash_tensors(scan_model(plain))


def test_spans_that_overlap_to_hide_bytes(plain):
    header = {
        "a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},
        "b": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},
        "c": {"dtype": "U8", "shape": [4], "data_offsets": [8, 12]},
    }
    (plain / "model.safetensors").write_bytes(forged(header, bytes(12)))
    with pytest.raises(FormatError, match="tensor 'b' overlaps"):
        hash_tensors(scan_model(plain))


def test_one_key_twice_with_two_dtypes(plain):
    # safetensors 0.8 takes the second; another reader may take the first.
    header = (
        '{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},'
        '"w":{"dtype":"I8","shape":[4],"data_offsets":[0,4]}}'
    )
    (plain / "model.safetensors").write_bytes(forged(header, bytes(4)))
    with pytest.raises(FormatError, match="same key twice"):
        hash_tensors(scan_model(plain))


@pytest.mark.parametrize("read", [hash_tensors, tensor_files])
def test_one_tensor_in_two_files(plain, read):
    (plain / "model-2.safetensors").write_bytes(EVIL)
    with pytest.raises(FormatError, match="tensor 'w' is also in model-2"):
        read(scan_model(plain))


def test_one_flipped_bit_changes_the_root(plain):
    signed = tensor_root(hash_tensors(scan_model(plain)))
    with (plain / "model.safetensors").open("r+b") as handle:
        handle.seek(-1, os.SEEK_END)
        handle.write(b"\x01")
    assert tensor_root(hash_tensors(scan_model(plain))) != signed
