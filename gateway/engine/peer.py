"""Who is at the other end of a Unix socket, and whether it is still the same process.

The kernel notes who called `listen`, unix(7); nobody can forge that. A process is its
pid and its start time, since pids are used again.
"""

import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = [
    "Peer",
    "bound_sockets",
    "inner_pid",
    "is_descendant",
    "peer_of",
    "start_time",
]

_CREDENTIALS = struct.Struct("iII")  # ucred in unix(7): pid, uid, gid


class _Socket(Protocol):
    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that listens.

    Attributes:
        pid: as seen from here; 0 where it lives in a pid namespace that is not
            visible from here, as in a pod whose containers do not share one.
        uid: its effective user when it began to listen.
        started: when it began, in clock ticks since the machine did; 0 where its pid
            is not visible.
    """

    pid: int
    uid: int
    started: int


def _stat(pid: int) -> list[bytes]:
    # The command in parentheses may hold anything; the fields come after it, proc(5).
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()


def start_time(pid: int) -> int:
    """When the process began, in clock ticks since the machine did; 0 if it is gone."""
    try:
        return int(_stat(pid)[19])
    except (OSError, IndexError, ValueError):
        return 0


def peer_of(connection: _Socket) -> Peer:
    """Who listens at the other end of a connected Unix socket.

    Raises:
        OSError: the socket is not connected, or not a Unix socket.
    """
    data = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
    )
    pid, uid, _ = _CREDENTIALS.unpack(data)
    return Peer(pid, uid, start_time(pid) if pid else 0)


def bound_sockets() -> set[str]:
    """The last part of the path of every Unix socket in this network namespace."""
    # Columns of proc(5), of which the path comes last and only where there is one.
    rows = Path("/proc/net/unix").read_bytes().splitlines()[1:]
    paths = (row.split(None, 7)[7:] for row in rows)
    return {os.fsdecode(path[0].rpartition(b"/")[2]) for path in paths if path}


def inner_pid(pid: int) -> int:
    """The process's pid in its own, innermost pid namespace; `pid` if that is here."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    except OSError:
        pass
    return pid


def is_descendant(pid: int, ancestor: int) -> bool:
    """Whether `ancestor` is the process or a parent of its parents."""
    while pid not in (0, ancestor):
        try:
            pid = int(_stat(pid)[1])
        except OSError:
            return False
    return pid == ancestor != 0
