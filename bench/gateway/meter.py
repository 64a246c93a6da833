"""CPU and memory of a tree of processes, and how much of the machine others took."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Noise", "children", "cpu_seconds", "resident_bytes"]

_TICK = os.sysconf("SC_CLK_TCK")


def children(root: int) -> list[int]:
    """The process and all that descend from it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat[1])
    found, last = {root}, 0
    while len(found) != last:
        last = len(found)
        found |= {pid for pid, parent in parents.items() if parent in found}
    return sorted(found)


def cpu_seconds(root: int) -> float:
    """CPU time of all threads of the tree, to the nanosecond (schedstat)."""
    total = 0
    for pid in children(root):
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                total += int(task.read_text().split()[0])
            except OSError:
                continue
    return total / 1e9


def resident_bytes(root: int) -> int:
    """Resident memory of the tree; what its processes share counts for each."""
    total = 0
    for pid in children(root):
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(
            int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")
        )
    return total


def _machine() -> tuple[float, float]:
    """Busy and stolen CPU seconds of the machine since it began."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _, _, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq) / _TICK, steal / _TICK


@dataclass
class Noise:
    """From here to `shares`: what others took of the machine."""

    def __post_init__(self) -> None:
        self._began = time.monotonic()
        self._busy, self._steal = _machine()

    def shares(self, ours: float) -> dict[str, float]:
        """`others` and `steal` as shares of all cores, given our own CPU seconds."""
        seconds = (time.monotonic() - self._began) * (os.cpu_count() or 1)
        busy, steal = _machine()
        return {
            "others": round(max(0.0, busy - self._busy - ours) / seconds, 3),
            "steal": round((steal - self._steal) / seconds, 3),
            "load": round(os.getloadavg()[0], 2),
        }
