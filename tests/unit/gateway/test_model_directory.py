import errno
import json

import pytest
from fakes.dmverity import play_volume
from fakes.model import sign_directory, write_safetensors
from fakes.world import NOW

from attest.errors import FormatError, ManifestMismatchError
from attest.hashing import hash_files
from attest.verity import verity_digest
from gateway.weights import Protection, check_model_directory


@pytest.fixture
def model(tmp_path):
    return sign_directory(tmp_path / "model", now=NOW)


@pytest.fixture
def free(tmp_path):
    return sign_directory(tmp_path / "model", now=NOW, free_sharding=True)


def check(model):
    shares = []

    def progress(done, total):
        shares.append(done / total)

    check_model_directory(model.root, model.manifest, progress)
    return shares


def refused(model, match):
    with pytest.raises(ManifestMismatchError, match=match) as caught:
        check(model)
    return caught.value


def test_honest_directory_with_progress(model):
    shares = check(model)
    assert shares[-1] == 1.0
    assert shares == sorted(shares)


# Files that the kernel keeps: fs-verity is played, since few kernels have it.


@pytest.fixture
def verity(monkeypatch):
    """Gives these names fs-verity, with the digest of what they hold."""

    def enable(*names):
        def measure(path):
            if path.name not in names:
                return None
            with path.open("rb") as file:
                return verity_digest(file)

        monkeypatch.setattr("gateway.weights.measure_path", measure)

    return enable


def signed_with_verity(tmp_path, **changes):
    model = sign_directory(tmp_path / "plain", now=NOW)
    listed = {}
    for path in model.root.iterdir():
        if path.name != "training-manifest.json":
            with path.open("rb") as file:
                listed[path.name] = verity_digest(file)
    return sign_directory(tmp_path / "model", now=NOW, fs_verity=listed | changes)


ALL = ("config.json", "chat_template.jinja", "model.safetensors")


def read_files(model, monkeypatch):
    names = []

    def hashing(files, **options):
        names.extend(file.name for file in files)
        return hash_files(files, **options)

    monkeypatch.setattr("gateway.weights.hash_files", hashing)
    found = check_model_directory(model.root, model.manifest, lambda *_: None)
    return found, names


def test_files_that_the_kernel_knows_are_not_read(tmp_path, verity, monkeypatch):
    model = signed_with_verity(tmp_path)
    verity(*ALL)
    assert read_files(model, monkeypatch) == (Protection.FS_VERITY, [])


def test_one_file_without_it_is_read_and_nothing_is_claimed(
    tmp_path, verity, monkeypatch
):
    model = signed_with_verity(tmp_path)
    verity(*ALL[1:])
    assert read_files(model, monkeypatch) == (Protection.STAT, ["config.json"])


def test_unlisted_digest_is_read_but_still_kept_by_the_kernel(
    model, verity, monkeypatch
):
    verity(*ALL)
    found, names = read_files(model, monkeypatch)
    assert found is Protection.FS_VERITY
    assert set(names) == set(ALL)


def test_kernel_knows_it_as_another_file(tmp_path, verity):
    model = signed_with_verity(tmp_path)
    verity(*ALL)
    (model.root / "config.json").write_text("{}")
    refused(model, "changed: config.json")


def test_added_file_with_fs_verity(tmp_path, verity):
    model = signed_with_verity(tmp_path)
    (model.root / "modeling.py").write_text("")
    verity(*ALL, "modeling.py")
    refused(model, "modeling.py")


def test_without_fs_verity_nothing_is_claimed(model):
    found = check_model_directory(model.root, model.manifest, lambda *_: None)
    assert found is Protection.STAT


# Directories that are a dm-verity volume, which is played too.

VOLUME = "ab" * 32


@pytest.fixture
def volume(tmp_path, monkeypatch):
    model = sign_directory(tmp_path / "model", now=NOW, dm_verity=VOLUME)
    play_volume(monkeypatch, model.root, VOLUME)
    return model


def test_files_of_the_signed_volume_are_not_read(volume, monkeypatch):
    assert read_files(volume, monkeypatch) == (Protection.DM_VERITY, [])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"root_hash": "cd" * 32}, "expected root hash"),
        ({"options": "1 check_at_most_once"}, "lets wrong blocks through"),
        ({"mounts": ""}, "one whole volume"),
        ({"error": errno.EPERM}, "CAP_SYS_ADMIN"),
    ],
)
def test_other_volume_is_read_and_nothing_is_claimed(
    volume, monkeypatch, capsys, changes, reason
):
    play_volume(monkeypatch, volume.root, **{"root_hash": VOLUME, **changes})
    found, names = read_files(volume, monkeypatch)
    assert found is Protection.STAT
    assert set(names) == set(ALL)
    assert reason in "".join(capsys.readouterr())


def test_volume_that_the_manifest_does_not_state(model, monkeypatch):
    play_volume(monkeypatch, model.root, VOLUME)
    assert read_files(model, monkeypatch)[0] is Protection.STAT


def test_added_file_on_the_volume(volume):
    (volume.root / "modeling.py").write_text("")
    assert refused(volume, "not listed").extra == ("modeling.py",)


def test_missing_file_on_the_volume(volume):
    (volume.root / "config.json").unlink()
    assert refused(volume, "missing").missing == ("config.json",)


def test_link_out_of_the_volume(volume, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (volume.root / "config.json").unlink()
    (volume.root / "config.json").symlink_to(tmp_path / "config.json")
    with pytest.raises(FormatError, match=r"config\.json"):
        check(volume)


def test_flipped_bit_names_file_and_tensor(model):
    path = model.root / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    error = refused(model, r"model.safetensors: tensor head: expected F32 \[2\] sha")
    assert error.changed == ("model.safetensors",)
    assert "attest weights digest" in error.hint


def test_changed_configuration_is_named(model):
    (model.root / "config.json").write_text("{}")
    refused(model, "changed: config.json")


def test_tensor_that_the_manifest_does_not_know(model):
    write_safetensors(model.root / "model.safetensors", {"other": [1.0]})
    refused(model, "tensor other is not in the manifest")


def test_many_changed_tensors_are_counted_not_listed(tmp_path):
    model = sign_directory(tmp_path / "model", now=NOW)
    tensors = {f"t{i}": [float(i)] for i in range(9)}
    write_safetensors(model.root / "model.safetensors", tensors)
    refused(model, "and 6 more")


def test_truncated_safetensors(model):
    path = model.root / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    refused(model, "changed: model.safetensors; model.safetensors: ")


@pytest.mark.parametrize("name", ["evil.safetensors", "modeling.py", "x.bin", ".git/x"])
def test_extra_file_is_refused(model, name):
    path = model.root / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
    assert refused(model, "not listed").extra == (name,)


def test_missing_file_is_refused(model):
    (model.root / "config.json").unlink()
    assert refused(model, "missing").missing == ("config.json",)


def reshard(model, *, weight_map=None):
    (model.root / "model.safetensors").unlink()
    write_safetensors(model.root / "a.safetensors", {"head": [4.0, 5.0]})
    write_safetensors(model.root / "b.safetensors", {"embed": [1.0, 2.0, 3.0]})
    index = {
        "weight_map": weight_map or {"head": "a.safetensors", "embed": "b.safetensors"}
    }
    (model.root / "model.safetensors.index.json").write_text(json.dumps(index))


def test_resharded_weights_pass_where_the_manifest_allows(free):
    reshard(free)
    check(free)


def test_resharded_weights_are_refused_where_it_does_not(model):
    reshard(model)
    refused(model, "missing: model.safetensors; not listed: a.safetensors")


def test_index_that_lies_is_refused(free):
    reshard(free, weight_map={"head": "b.safetensors", "embed": "b.safetensors"})
    refused(free, "does not say what the files hold")


def test_free_sharding_never_covers_a_changed_tensor(free):
    reshard(free)
    write_safetensors(free.root / "a.safetensors", {"head": [4.0, 5.5]})
    refused(free, "changed: head; a.safetensors: tensor head: expected F32")


def test_free_sharding_names_tensors_beside_a_changed_configuration(free):
    (free.root / "config.json").write_text("{}")
    write_safetensors(free.root / "model.safetensors", {"embed": [1.0], "head": [4.0]})
    refused(free, "changed: config.json; model.safetensors: tensor embed: expected")


def test_free_sharding_never_covers_a_tensor_too_many(free):
    reshard(free)
    write_safetensors(free.root / "c.safetensors", {"third": [1.0]})
    refused(free, "not listed: third")


def test_free_sharding_never_covers_weights_in_a_folder(free):
    (free.root / "deep").mkdir()
    write_safetensors(free.root / "deep" / "x.safetensors", {"x": [1.0]})
    refused(free, "not listed: deep/x.safetensors")


def test_free_sharding_with_one_tensor_twice(free):
    reshard(free)
    write_safetensors(free.root / "c.safetensors", {"head": [4.0, 5.0]})
    refused(free, "head")
