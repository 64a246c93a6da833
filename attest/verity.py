"""fs-verity: the kernel's own digest of a file, which it then refuses to let change.

A file with fs-verity is read-only for good, and every block that is read is checked
against a Merkle tree. Its digest is had by one ioctl, however large the file is. It
speaks of the inode that is open, so measure the descriptor that is held: the path can
still be given to another file.

Format and ioctl: Documentation/filesystems/fsverity.rst of Linux.
"""

import errno
import fcntl
import hashlib
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from attest.digests import parse_digest
from attest.errors import EvidenceUnavailableError, FormatError

__all__ = ["listed_verity", "measure", "measure_path", "verity_digest"]

# _IOWR('f', 134, struct fsverity_digest), the same on every machine that Linux runs on
# but alpha, mips, powerpc and sparc.
_FS_IOC_MEASURE_VERITY = 0xC0046686
_HEADER = struct.Struct("HH")  # digest_algorithm, digest_size
_MAX_DIGEST = 64
_SHA256 = 1  # FS_VERITY_HASH_ALG_SHA256
# No fs-verity on this file, this file system or in this kernel.
_WITHOUT = frozenset({errno.ENODATA, errno.ENOTTY, errno.EOPNOTSUPP})

_BLOCK, _HASH = 4096, 32
_CHUNK = 256 * _BLOCK
_MAX_SALT = 32
# struct fsverity_descriptor: version, hash_algorithm, log_blocksize, salt_size, four
# bytes of zero, data_size, root_hash[64], salt[32], 144 bytes of zero.
_DESCRIPTOR = struct.Struct("<BBBB4xQ64s32s144x")


def _ioctl(fd: int, request: int, buffer: bytearray) -> None:
    """The one call of the kernel; tests put recorded answers here."""
    fcntl.ioctl(fd, request, buffer)


def measure(fd: int) -> str | None:
    """The fs-verity digest of an open file, as a text digest; None without fs-verity.

    NOT checked: that all blocks on the disk still match. The kernel does that when they
    are read, and then gives an error, or SIGBUS to who mapped the file.

    Raises:
        FormatError: it has one by another algorithm than SHA-256.
        EvidenceUnavailableError: the kernel gives another error.
    """
    buffer = bytearray(_HEADER.pack(0, _MAX_DIGEST)) + bytearray(_MAX_DIGEST)
    try:
        _ioctl(fd, _FS_IOC_MEASURE_VERITY, buffer)
    except OSError as error:
        if error.errno in _WITHOUT:
            return None
        raise EvidenceUnavailableError(
            f"fs-verity: the kernel does not measure the file: {error.strerror}",
            hint="look at the disk and at the kernel's log",
        ) from error
    algorithm, size = _HEADER.unpack_from(buffer)
    if (algorithm, size) != (_SHA256, 32):
        raise FormatError(
            f"fs-verity: algorithm {algorithm}, expected SHA-256",
            hint="enable it with: fsverity enable --hash-alg=sha256 FILE",
        )
    return "sha256:" + bytes(buffer[_HEADER.size : _HEADER.size + size]).hex()


def measure_path(path: Path) -> str | None:
    """As `measure`, for a file that is opened for it; links are not followed.

    Raises:
        FormatError: as `measure`.
        EvidenceUnavailableError: as `measure`, or the file can't be opened.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise EvidenceUnavailableError(
            f"{path.name}: cannot be read: {error.strerror}",
            hint="look at the owner and mode of the file, and at the disk",
        ) from error
    try:
        return measure(fd)
    finally:
        os.close(fd)


def _hash_block(block: bytes, salt: bytes) -> bytes:
    # The salt is filled up to the hash's own block size.
    padded = salt.ljust(64, b"\0") if salt else b""
    return hashlib.sha256(padded + block.ljust(_BLOCK, b"\0")).digest()


def _hash_blocks(data: bytes, salt: bytes) -> bytes:
    blocks = range(0, len(data), _BLOCK)
    return b"".join(_hash_block(data[at : at + _BLOCK], salt) for at in blocks)


def verity_digest(file: BinaryIO, *, salt: bytes = b"") -> str:
    """What `fsverity digest FILE` prints for SHA-256 and blocks of 4096 bytes.

    Reads the file once from where it stands; memory is 1/128 of its size.

    Raises:
        ValueError: the salt has more than 32 bytes.
        OSError: the file can't be read.
    """
    if len(salt) > _MAX_SALT:
        raise ValueError(f"fs-verity: a salt has at most {_MAX_SALT} bytes")
    size, level = 0, bytearray()
    while chunk := file.read(_CHUNK):
        size += len(chunk)
        level += _hash_blocks(chunk, salt)
    while len(level) > _HASH:
        level = bytearray(_hash_blocks(bytes(level), salt))
    # An empty file has no tree: its root is zero.
    root = bytes(level) if size else bytes(_HASH)
    descriptor = _DESCRIPTOR.pack(
        1, _SHA256, _BLOCK.bit_length() - 1, len(salt), size, root, salt
    )
    return "sha256:" + hashlib.sha256(descriptor).hexdigest()


def listed_verity(predicate: Mapping[str, Any]) -> dict[str, str]:
    """File name to fs-verity digest, as a manifest's predicate lists them; may be none.

    Raises:
        FormatError: `weights.fsVerity` is not in its form.
    """
    listed = predicate["weights"].get("fsVerity", {})
    if not isinstance(listed, dict) or not all(map(_is_digest, listed.values())):
        raise FormatError("manifest: weights.fsVerity is not a map of digests")
    return dict(listed)


def _is_digest(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(parse_digest(value))
    except FormatError:
        return False
