"""Whether a model directory is the dm-verity volume that its manifest states.

The kernel's table of the device says against which root hash every block is checked;
the mount table says that the directory is that volume, whole, and nothing else.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from attest.dmverity import SignedVolume, device_table
from attest.errors import EvidenceUnavailableError, FormatError, ManifestMismatchError
from attest.hashing import ModelFile

__all__ = ["check_volume"]

_MOUNTS = Path("/proc/self/mountinfo")
# Space, tab, newline and backslash, as proc(5) writes them.
_ESCAPE = re.compile(r"\\([0-7]{3})")
_MOUNT_FIELDS = 6


def check_volume(root: Path, files: Iterable[ModelFile], signed: SignedVolume) -> None:
    """Return when `root` is where the signed volume is mounted, whole and read-only.

    Then every byte of `files`, which must be what `scan_model` found, is the volume's.

    NOT checked: that mounts and the device's table stay as they are, which whoever has
    CAP_SYS_ADMIN can change; that another container sees the same mount; that the
    authority signed the root hash of a volume with the files that it lists.

    Raises:
        ManifestMismatchError: the device checks against another root hash.
        FormatError: the directory is not one whole such volume, or its table lets
            wrong blocks through.
        EvidenceUnavailableError: the kernel does not say.
    """
    folder = root.resolve()
    device = _device(folder)
    _check_mount(folder, device)
    for file in files:
        if not file.path.is_relative_to(folder) or _device(file.path) != device:
            raise FormatError(f"dm-verity: {file.name} is not on the volume")
    table = device_table(device)
    if not table.is_volume(signed):
        raise ManifestMismatchError(
            f"dm-verity: expected root hash {signed.root_hash}, "
            f"the device has {table.root_hash}",
            hint="compare with: veritysetup status NAME",
        )


def _device(path: Path) -> int:
    try:
        return path.lstat().st_dev
    except OSError as error:
        raise EvidenceUnavailableError(
            f"{path.name}: cannot be looked at: {error.strerror}"
        ) from error


def _check_mount(folder: Path, device: int) -> None:
    """One mount at `folder`: the device's whole file system; and none below it.

    A file of the same volume can be bind-mounted over another one, which no number of
    a device shows.
    """
    number = f"{os.major(device)}:{os.minor(device)}"
    here = []
    for where, what, top, flags in _mounts():
        if where == folder:
            here.append((what, top, "ro" in flags))
        elif where.is_relative_to(folder):
            raise FormatError("dm-verity: something is mounted inside the directory")
    if here != [(number, "/", True)]:
        raise FormatError(
            "dm-verity: the directory is not where one whole volume is mounted "
            "read-only",
            hint="mount the volume itself there, with -o ro, and no folder of it",
        )


def _mounts() -> list[tuple[Path, str, str, list[str]]]:
    """Of each mount: where, `major:minor`, what of the file system, and its flags."""
    try:
        lines = os.fsdecode(_MOUNTS.read_bytes()).splitlines()
    except OSError as error:
        raise EvidenceUnavailableError(
            f"dm-verity: the mounts cannot be read: {error.strerror}"
        ) from error
    found = []
    for line in lines:
        fields = line.split(" ")
        if len(fields) < _MOUNT_FIELDS:
            raise FormatError("dm-verity: the mount table is not in its form")
        _, _, number, top, where, flags = fields[:_MOUNT_FIELDS]
        found.append((Path(_unescape(where)), number, top, flags.split(",")))
    return found


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)
