import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.model import sign_directory
from fakes.world import NOW

from attest.errors import EvidenceUnavailableError, ManifestMismatchError
from attest.hashing import scan_model
from gateway.engine.sealed import seal_model


@pytest.fixture
def model(tmp_path):
    return sign_directory(tmp_path / "model", now=NOW)


@pytest.fixture
def seal(tmp_path, model):
    made = []

    def run(*, shards=True, subjects=None):
        sealed = seal_model(
            scan_model(model.root),
            model.manifest.subjects if subjects is None else subjects,
            tmp_path / "sealed",
            shards=shards,
        )
        made.append(sealed)
        return sealed

    yield run
    for sealed in made:
        sealed.close()


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_copies_are_the_files(model, seal):
    sealed = seal()
    original = content(model.root)
    del original["training-manifest.json"]
    assert content(sealed.folder) == original
    assert sealed.size == sum(map(len, original.values()))
    assert sealed.folder.stat().st_mode & 0o777 == 0o700


def test_what_changes_on_the_disk_changes_no_copy(model, seal):
    sealed = seal()
    before = content(sealed.folder)
    for path in model.root.iterdir():
        path.write_bytes(b"evil")
    assert content(sealed.folder) == before


@pytest.mark.parametrize("mode", ["r+b", "wb", "ab"])
def test_nobody_writes_to_a_copy(seal, mode):
    path = seal().folder / "config.json"
    with pytest.raises(PermissionError), path.open(mode) as file:  # noqa: PT012
        file.write(b"x")
        file.flush()
    with pytest.raises(PermissionError):
        os.truncate(path, 0)


def test_another_process_reads_it_and_can_not_write(seal):
    path = seal().folder / "config.json"
    code = (
        "import sys; p = sys.argv[1]; print(len(open(p).read()));"
        " open(p, 'r+b', buffering=0).write(b'x')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=False
    )
    assert int(done.stdout) > 0
    assert "PermissionError" in done.stderr


def test_small_leaves_the_shards_on_the_disk(model, seal):
    sealed = seal(shards=False)
    assert (sealed.folder / "model.safetensors").readlink().parent == model.root
    assert "/fd/" in str((sealed.folder / "config.json").readlink())


def test_file_that_changed_since_it_was_checked(model, seal):
    subjects = dict(model.manifest.subjects)
    subjects["config.json"] = "sha256:" + "0" * 64
    with pytest.raises(ManifestMismatchError, match=r"config\.json changed") as caught:
        seal(subjects=subjects)
    assert caught.value.changed == ("config.json",)


def test_file_that_is_not_listed(model, seal):
    subjects = dict(model.manifest.subjects)
    del subjects["config.json"]
    with pytest.raises(ManifestMismatchError):
        seal(subjects=subjects)


def test_file_that_is_gone(model, tmp_path):
    files = scan_model(model.root)
    (model.root / "config.json").unlink()
    with pytest.raises(EvidenceUnavailableError, match="into memory"):
        seal_model(files, model.manifest.subjects, tmp_path / "s", shards=True)


def test_closing_gives_the_descriptors_back(seal):
    before = descriptors()
    sealed = seal()
    assert descriptors() == before + 3
    sealed.close()
    sealed.close()
    assert descriptors() == before


def test_failed_copy_leaves_no_descriptor(model, seal):
    before = descriptors()
    with pytest.raises(ManifestMismatchError):
        seal(subjects={})
    assert descriptors() == before
