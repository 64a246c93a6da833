"""Time and memory of a piece of work. See `scale.py`."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
_STATUS = Path("/proc/self/status")


def timed(work: Callable[[], T], times: int = 1) -> tuple[T, float]:
    """The last result, and the median of `times` runs in seconds."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        result = work()
        taken.append(time.perf_counter() - started)
    return result, sorted(taken)[times // 2]


def _kibibytes(field: str) -> int:
    line = _STATUS.read_text().partition(field + ":")[2].split(maxsplit=1)[0]
    return int(line)


@contextmanager
def cost(into: dict[str, Any], name: str) -> Iterator[None]:
    """Seconds of the block, wall and CPU, and how far memory rose meanwhile, in MiB."""
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): forget the peak
    before = _kibibytes("VmRSS")
    started, cpu = time.perf_counter(), time.process_time()
    yield
    into[f"{name}_s"] = time.perf_counter() - started
    into[f"{name}_cpu_s"] = time.process_time() - cpu
    into[f"{name}_peak_mib"] = max(0, _kibibytes("VmHWM") - before) / 1024
