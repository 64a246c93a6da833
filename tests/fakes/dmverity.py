"""The kernel's side of dm-verity, which needs CAP_SYS_ADMIN and a device to be real."""

import os
import struct
from pathlib import Path

import pytest

__all__ = ["play_volume", "table_reply"]

BLOCKS = 245


def table_reply(device: int, root_hash: str, options: str = "") -> bytes:
    """What DM_TABLE_STATUS writes for a verity device, in linux/dm-ioctl.h's layout."""
    line = f"1 7:1 7:2 4096 4096 {BLOCKS} 1 sha256 {root_hash} aabb {options}"
    text = line.encode() + b"\0"
    header = struct.pack("=3IIIIiIII", 4, 47, 0, 352 + len(text), 312, 1, 1, 49, 0, 0)
    header += struct.pack("=Q128s129s7x", device, b"model", b"CRYPT-VERITY-0-model")
    target = struct.pack("=QQiI16s", 0, BLOCKS * 8, 0, 40 + len(text), b"verity")
    return (header + target + text).ljust(16384, b"\0")


def play_volume(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    root_hash: str,
    *,
    options: str = "",
    mounts: str | None = None,
    error: int = 0,
) -> None:
    """Let `folder` look like a mounted volume with this root hash.

    `mounts` are lines of mountinfo in place of the right one, `error` an errno that
    the kernel gives instead of the table.
    """
    device = folder.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    right = f"40 1 {number} / {folder} ro,relatime shared:1 - erofs /dev/dm-0 ro\n"
    lines = right if mounts is None else mounts.format(number=number, folder=folder)
    table = folder.parent / "mountinfo"
    table.write_text("22 1 0:21 / /proc rw - proc proc rw\n" + lines)
    monkeypatch.setattr("gateway.volume._MOUNTS", table)

    def ioctl(buffer: bytearray) -> None:
        if error:
            raise OSError(error, os.strerror(error))
        buffer[:] = table_reply(device, root_hash, options)

    monkeypatch.setattr("attest.dmverity._ioctl", ioctl)
