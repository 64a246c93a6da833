"""dm-verity: a whole read-only block device that the kernel checks while it is read.

One root hash stands for every block of the volume, the file system's own included. A
block that does not match is an error for whoever reads it. Which root hash a device
was set up with is for its device-mapper table to say.

Format: Documentation/admin-guide/device-mapper/verity.rst of Linux; the ioctl:
include/uapi/linux/dm-ioctl.h.
"""

import errno
import fcntl
import hashlib
import hmac
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from attest.digests import from_hex, to_hex
from attest.errors import EvidenceUnavailableError, FormatError

__all__ = [
    "SignedVolume",
    "VerityTable",
    "device_table",
    "listed_volume",
    "parse_reply",
    "parse_table",
    "volume_root_hash",
    "volume_statement",
]

CONTROL = Path("/dev/mapper/control")

# struct dm_ioctl: version[3], data_size, data_start, target_count, open_count, flags,
# event_nr, padding, dev, name[128], uuid[129], data[7].
_HEADER = struct.Struct("=3IIIIiIIIQ128s129s7x")
# struct dm_target_spec: sector_start, length, status, next, target_type[16].
_TARGET = struct.Struct("=QQiI16s")
# _IOWR(0xfd, 12, struct dm_ioctl), the same on every machine that Linux runs on but
# alpha, mips, powerpc and sparc.
_DM_TABLE_STATUS = 0xC138FD0C
_INTERFACE = (4, 0, 0)
_READONLY, _STATUS_TABLE, _ACTIVE, _BUFFER_FULL = 1 << 0, 1 << 4, 1 << 5, 1 << 8
_REPLY = 16 * 1024
# No device-mapper, not a device of it, or not for us to ask.
_NOT_FOR_US = frozenset({errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENXIO})

_BLOCK, _HASH = 4096, 32
_SECTORS = _BLOCK // 512
_MAX_SALT = 256
_NUMBER = re.compile(r"(?:0|[1-9][0-9]{0,18})\Z")
_DEVICE = re.compile(r"[0-9]{1,10}:[0-9]{1,10}\Z")
_SALT = re.compile(r"(?:-|(?:[0-9a-f]{2}){1,256})\Z")
_FIXED = 10
_MEMBERS = frozenset({"algorithm", "rootHash", "salt"})

# Optional argument to the number of words after it. Those of the second set let the
# kernel hand out bytes that the tree does not cover.
_OPTIONS = {
    "restart_on_corruption": 0,
    "panic_on_corruption": 0,
    "restart_on_error": 0,
    "panic_on_error": 0,
    "ignore_zero_blocks": 0,
    "try_verify_in_tasklet": 0,
    "use_fec_from_device": 1,
    "fec_blocks": 1,
    "fec_start": 1,
    "fec_roots": 1,
    "root_hash_sig_key_desc": 1,
}
_WEAKENING = frozenset({"ignore_corruption", "check_at_most_once"})


@dataclass(frozen=True, slots=True)
class SignedVolume:
    """The volume that a manifest states.

    Attributes:
        root_hash: text digest.
        salt: in hex, None where the manifest leaves it open. The root hash fixes it:
            blocks have one size, so another salt is another preimage.
    """

    root_hash: str
    salt: str | None = None


@dataclass(frozen=True, slots=True)
class VerityTable:
    """What a device checks its blocks against, SHA-256 over blocks of 4096 bytes.

    Attributes:
        root_hash: text digest.
        salt: in hex, empty for none.
        data_blocks: size of the device, in blocks of 4096 bytes. NOT fixed by the
            root hash; a device that was cut short gives errors, not other bytes.
    """

    root_hash: str
    salt: str
    data_blocks: int

    def is_volume(self, signed: SignedVolume) -> bool:
        """Whether its root hash, and a stated salt, are the signed ones.

        Compared in constant time.
        """
        found = f"{self.root_hash} {self.salt if signed.salt is not None else ''}"
        expected = f"{signed.root_hash} {signed.salt or ''}"
        return hmac.compare_digest(found.encode(), expected.encode())


def listed_volume(predicate: Mapping[str, Any]) -> SignedVolume | None:
    """The volume that a manifest's predicate states, None where it states none.

    Raises:
        FormatError: `weights.dmVerity` is not in its form.
    """
    stated = predicate["weights"].get("dmVerity")
    if stated is None:
        return None
    if not isinstance(stated, dict) or stated.keys() - _MEMBERS:
        raise FormatError("manifest: weights.dmVerity is not a volume")
    if stated.get("algorithm") != "sha256":
        raise FormatError("manifest: weights.dmVerity.algorithm: expected sha256")
    salt = stated.get("salt")
    if salt is not None and not (isinstance(salt, str) and _SALT.match(salt)):
        raise FormatError("manifest: weights.dmVerity.salt: expected hex digits or -")
    root_hash = from_hex(stated.get("rootHash"))
    return SignedVolume(root_hash, "" if salt == "-" else salt)


def _ioctl(buffer: bytearray) -> None:
    """The one call of the kernel; tests put recorded answers here."""
    fd = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _DM_TABLE_STATUS, buffer)
    finally:
        os.close(fd)


def device_table(device: int) -> VerityTable:
    """The verity table that a device has now; `device` is a file's `st_dev`.

    NOT checked: that it stays. Whoever has CAP_SYS_ADMIN can give the device another.

    Raises:
        FormatError: the device is another one than a dm-verity device that refuses
            every wrong block.
        EvidenceUnavailableError: the kernel does not say; it takes CAP_SYS_ADMIN.
    """
    request = _HEADER.pack(
        *_INTERFACE, _REPLY, _HEADER.size, 0, 0, _STATUS_TABLE, 0, 0, device, b"", b""
    )
    buffer = bytearray(request.ljust(_REPLY, b"\0"))
    try:
        _ioctl(buffer)
    except OSError as error:
        why = "needs CAP_SYS_ADMIN" if error.errno in _NOT_FOR_US else "gives an error"
        raise EvidenceUnavailableError(
            f"dm-verity: asking for the device's table {why}: {error.strerror}",
            hint="the files are hashed instead; nothing has to be done",
        ) from error
    return parse_reply(bytes(buffer), device)


def parse_reply(reply: bytes, device: int) -> VerityTable:
    """What the kernel wrote for DM_TABLE_STATUS: one verity target, the whole device.

    Raises:
        FormatError: anything else; also a device that can be written to.
    """
    if len(reply) < _HEADER.size + _TARGET.size:
        raise FormatError("dm-verity: reply of the device-mapper is too short")
    header = _HEADER.unpack_from(reply)
    major, size, start, count, flags, found = (header[i] for i in (0, 3, 4, 5, 7, 10))
    if major != _INTERFACE[0] or found != device or flags & _BUFFER_FULL:
        raise FormatError("dm-verity: reply of the device-mapper is not the answer")
    if count != 1 or flags & (_ACTIVE | _READONLY) != _ACTIVE | _READONLY:
        raise FormatError("dm-verity: expected one target, active and read-only")
    at = start + _TARGET.size
    if start < _HEADER.size or not at <= size <= len(reply):
        raise FormatError("dm-verity: reply of the device-mapper has wrong lengths")
    sector, length, _, _, kind = _TARGET.unpack_from(reply, start)
    if kind.rstrip(b"\0") != b"verity":
        raise FormatError("dm-verity: the device is of another kind")
    text, end, _ = reply[at:size].partition(b"\0")
    if not end or not text.isascii():
        raise FormatError("dm-verity: the table is not text")
    table = parse_table(text.decode("ascii"))
    if (sector, length) != (0, table.data_blocks * _SECTORS):
        raise FormatError("dm-verity: the table does not cover the whole device")
    return table


def parse_table(line: str) -> VerityTable:
    """The parameters of a `verity` target, as `dmsetup table` prints them after it.

    Raises:
        FormatError: another version, algorithm or block size; an optional argument
            that is unknown, or that lets wrong blocks through.
    """
    words = line.rstrip(" ").split(" ")
    if len(words) < _FIXED:
        raise FormatError(f"dm-verity: {len(words)} words, expected at least {_FIXED}")
    version, data, hashes, *numbers, algorithm, root, salt = words[:_FIXED]
    if version != "1" or algorithm != "sha256":
        raise FormatError("dm-verity: expected version 1 and sha256")
    if not _DEVICE.match(data) or not _DEVICE.match(hashes):
        raise FormatError("dm-verity: a device is not in the form MAJOR:MINOR")
    if not all(map(_NUMBER.match, numbers)) or not _SALT.match(salt):
        raise FormatError("dm-verity: a number or the salt is not in its form")
    data_block, hash_block, data_blocks, _ = map(int, numbers)
    if (data_block, hash_block) != (_BLOCK, _BLOCK) or not data_blocks:
        raise FormatError(f"dm-verity: expected blocks of {_BLOCK} bytes")
    _check_options(words[_FIXED:])
    return VerityTable(from_hex(root), "" if salt == "-" else salt, data_blocks)


def _check_options(words: list[str]) -> None:
    if not words:
        return
    count, *options = words
    if not _NUMBER.match(count) or int(count) != len(options):
        raise FormatError("dm-verity: wrong count of optional arguments")
    left = iter(options)
    for option in left:
        if option in _WEAKENING:
            raise FormatError(f"dm-verity: {option} lets wrong blocks through")
        if option not in _OPTIONS:
            raise FormatError("dm-verity: unknown optional argument")
        for _ in range(_OPTIONS[option]):
            if not next(left, ""):
                raise FormatError(f"dm-verity: {option} has no value")


def volume_root_hash(volume: BinaryIO, *, salt: bytes = b"") -> str:
    """The text digest that `veritysetup format --salt=SALT` prints as root hash.

    For format 1, SHA-256 and blocks of 4096 bytes. Reads the volume once from where it
    stands; memory is 1/128 of its size.

    Raises:
        ValueError: the salt has more than 256 bytes, or the volume is not whole blocks.
        OSError: it can't be read.
    """
    if len(salt) > _MAX_SALT:
        raise ValueError(f"dm-verity: a salt has at most {_MAX_SALT} bytes")
    level = bytearray()
    while block := volume.read(_BLOCK):
        if len(block) != _BLOCK:
            raise ValueError(f"dm-verity: expected whole blocks of {_BLOCK} bytes")
        level += hashlib.sha256(salt + block).digest()
    if not level:
        raise ValueError("dm-verity: the volume is empty")
    while len(level) > _HASH:
        level = bytearray().join(
            hashlib.sha256(
                salt + bytes(level[at : at + _BLOCK]).ljust(_BLOCK, b"\0")
            ).digest()
            for at in range(0, len(level), _BLOCK)
        )
    return from_hex(level.hex())


def volume_statement(root_hash: str) -> dict[str, str]:
    """`weights.dmVerity` for a root hash in hex, as `veritysetup` prints it.

    Raises:
        FormatError: not 64 lower-case hex digits.
    """
    return {"algorithm": "sha256", "rootHash": to_hex(from_hex(root_hash))}
