import dataclasses
import errno
import os

import pytest
from fakes.dmverity import play_volume

from attest.dmverity import SignedVolume
from attest.errors import EvidenceUnavailableError, FormatError, ManifestMismatchError
from attest.hashing import scan_model
from gateway import volume
from gateway.volume import check_volume

ROOT = "8d9f941658b5602a60f62a9a90ebaef51f18a3efc69c727c2ba47f9daa2d2a51"
SIGNED = SignedVolume(f"sha256:{ROOT}")
RIGHT = "40 1 {number} / {folder} ro - erofs /dev/dm-0 ro\n"


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "my model"
    (root / "deep").mkdir(parents=True)
    (root / "config.json").write_text("{}")
    (root / "deep" / "x").write_text("x")
    return root


def check(folder, signed=SIGNED):
    check_volume(folder, scan_model(folder), signed)


@pytest.fixture
def play(folder, monkeypatch):
    def as_volume(**options):
        # The kernel writes a space in a path as \040.
        options = {"mounts": RIGHT, **options}
        options["mounts"] = options["mounts"].replace(
            "{folder}", str(folder).replace(" ", r"\040")
        )
        play_volume(monkeypatch, folder, options.pop("root_hash", ROOT), **options)

    return as_volume


def test_whole_volume(folder, play):
    play()
    check(folder)
    check(folder, SignedVolume(f"sha256:{ROOT}", "aabb"))


def test_folder_is_reached_through_a_link(folder, play, tmp_path):
    play()
    (tmp_path / "link").symlink_to(folder)
    check(tmp_path / "link")


def test_volume_with_another_root_hash(folder, play):
    play(root_hash="0" * 64)
    with pytest.raises(ManifestMismatchError, match="root hash"):
        check(folder)


def test_volume_with_another_salt(folder, play):
    play()
    with pytest.raises(ManifestMismatchError):
        check(folder, SignedVolume(f"sha256:{ROOT}", "ccdd"))


def test_table_that_lets_wrong_blocks_through(folder, play):
    play(options="1 ignore_corruption")
    with pytest.raises(FormatError, match="ignore_corruption"):
        check(folder)


def test_process_that_may_not_ask(folder, play):
    play(error=errno.EACCES)
    with pytest.raises(EvidenceUnavailableError, match="CAP_SYS_ADMIN"):
        check(folder)


@pytest.mark.parametrize(
    "mounts",
    [
        "",
        "40 1 {number} / / ro - erofs /dev/dm-0 ro\n",
        "40 1 {number} /other {folder} ro - erofs /dev/dm-0 ro\n",
        "40 1 {number} / {folder} rw - ext4 /dev/dm-0 rw\n",
        "40 1 0:99 / {folder} ro - erofs /dev/dm-9 ro\n",
        RIGHT + RIGHT,
    ],
    ids=["none", "above", "folder-of-it", "writable", "other-device", "stacked"],
)
def test_folder_that_is_not_the_whole_volume(folder, play, mounts):
    play(mounts=mounts)
    with pytest.raises(FormatError, match="one whole volume"):
        check(folder)


def test_file_of_the_volume_bound_over_another(folder, play):
    play(mounts=RIGHT + "41 40 {number} /deep/x {folder}/config.json ro - erofs d ro\n")
    with pytest.raises(FormatError, match="mounted inside"):
        check(folder)


def test_mount_table_in_another_form(folder, play):
    play(mounts="40 1\n")
    with pytest.raises(FormatError, match="mount table"):
        check(folder)


def test_file_outside_the_volume(folder, play, tmp_path):
    """`scan_model` refuses a link out; this is as if it had let one through."""
    play()
    (tmp_path / "outside").write_text("{}")
    files = [
        dataclasses.replace(file, path=tmp_path / "outside")
        for file in scan_model(folder)
    ]
    with pytest.raises(FormatError, match="not on the volume"):
        check_volume(folder, files, SIGNED)


def test_file_of_another_device(folder, play, monkeypatch):
    play()
    true = volume._device
    monkeypatch.setattr(volume, "_device", lambda path: true(path) + (path.name == "x"))
    with pytest.raises(FormatError, match="deep/x is not on the volume"):
        check(folder)


def test_file_that_went_away(folder, play):
    play()
    files = scan_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(EvidenceUnavailableError, match=os.strerror(errno.ENOENT)):
        check_volume(folder, files, SIGNED)


def test_ordinary_folder_here(folder):
    """Nothing is played: this folder is no mount."""
    with pytest.raises(FormatError, match="one whole volume"):
        check(folder)
