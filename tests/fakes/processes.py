"""Looking at other processes."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

__all__ = ["alive", "descendants", "eventually", "group", "listening"]


def alive(pid: int) -> bool:
    """Whether any thread of the process runs.

    A process that is killed shows as a zombie once its first thread has ended; what it
    holds, sockets that listen too, goes only with the last one.
    """
    try:
        threads = [*Path(f"/proc/{pid}/task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return any(_status(thread / "stat")[0] not in {b"Z", b"X"} for thread in threads)


def group(leader: int) -> set[int]:
    """The living processes of a process group."""
    return {
        int(folder.name)
        for folder in Path("/proc").glob("[0-9]*")
        if _status(folder / "stat")[2:3] == [b"%d" % leader] and alive(int(folder.name))
    }


def _status(path: Path) -> list[bytes]:
    """The fields of proc_pid_stat(5) from the third on; of what is gone: ended."""
    try:
        return path.read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return [b"X"]


def eventually(condition: Callable[[], bool], seconds: float = 30) -> bool:
    """Wait for the condition; False where it does not come in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def descendants(pid: int) -> list[int]:
    """The living processes below one, parents before their children."""
    found, pending = [], [pid]
    while pending:
        parent = pending.pop(0)
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                children = [int(child) for child in task.read_text().split()]
            except (FileNotFoundError, ProcessLookupError):
                continue
            found += children
            pending += children
    return [child for child in found if alive(child)]


def listening(pids) -> list[str]:
    """Where the processes listen: paths of Unix sockets, addresses of TCP sockets.

    A path that begins with `@` is an abstract one, which no folder protects.
    """
    held = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            with suppress(OSError):
                held.add(link.readlink().name)
    found = []
    accepting = 0x10000  # __SO_ACCEPTCON
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[3], 16) & accepting and f"socket:[{fields[6]}]" in held:
            found.append(" ".join(fields[7:]))
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in held:
                found.append(f"{table} {fields[1]}")
    return sorted(found)
