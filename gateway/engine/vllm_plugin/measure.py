"""Copying a tensor into private memory and hashing that copy."""

import contextlib
import hashlib
import mmap
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from .check import WeightsRefusedError
from .tree import Tensor

__all__ = ["Measured", "measured"]

# safetensors' names. A type that is missing here is refused: F4 and F6, for example,
# have another shape in torch than in the file.
_DTYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.float8_e8m0fnu: "F8_E8M0",
}

# SHA-256 runs at 1.5 to 2 GB/s per core with SHA-NI, disks and page caches at several
# times that; beyond four threads reading is what takes the time.
_THREADS = 4
# So many tensors are read ahead of the one that the model takes in. Small ones lie
# between large ones, and the disk is to be busy while all cores hash.
_AHEAD = 12
_PAGE = 4096
# Large copies are put into huge pages, as far as the kernel lets. Faults of small ones
# took half as long as hashing does.
_HUGE_PAGE = 2 << 20
# Copies that wait for the model hold memory; one tensor may be larger than this.
_MAX_WAITING_BYTES = 1 << 30


@dataclass(frozen=True)
class Measured:
    """A private copy and what was measured in it.

    Attributes:
        copy: the tensor to load.
        tensor: its entry for the tree.
        seconds: that hashing took.
    """

    copy: torch.Tensor
    tensor: Tensor
    seconds: float


def _touch(mapped: torch.Tensor) -> None:
    """Have a tensor read from the disk: one byte of each page is looked at."""
    mapped.reshape(-1).view(torch.uint8)[::_PAGE].sum()


def _measure(name: str, mapped: torch.Tensor, read: "Future[None]") -> Measured:
    read.result()
    # The file is only mapped: whoever writes to it changes `mapped` even now. The
    # copy is what is hashed, and the same copy goes on to the model.
    copy = _private_copy(mapped.detach())
    started = time.perf_counter()
    raw = copy.reshape(-1).view(torch.uint8).numpy()
    digest = hashlib.sha256(raw).hexdigest()
    seconds = time.perf_counter() - started
    tensor = Tensor(name, _DTYPES[copy.dtype], tuple(copy.shape), digest)
    return Measured(copy, tensor, seconds)


def _private_copy(mapped: torch.Tensor) -> torch.Tensor:
    if mapped.nbytes < _HUGE_PAGE:
        return mapped.clone(memory_format=torch.contiguous_format)
    memory = mmap.mmap(-1, mapped.nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    # The tensor holds the memory, which goes when the tensor does.
    raw = torch.frombuffer(memory, dtype=torch.uint8)
    return raw.view(mapped.dtype).view(mapped.shape).copy_(mapped)


def _check_kind(name: str, mapped: torch.Tensor) -> None:
    if mapped.dtype not in _DTYPES or mapped.device.type != "cpu":
        raise WeightsRefusedError(
            "a kind of tensor that cannot be measured",
            tensor=name,
            expected="a plain tensor in host memory",
            found=f"{mapped.dtype} on {mapped.device}",
        )


def measured(weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[Measured]:
    """A private copy of each tensor with its measurement, in the order given.

    One thread has the next tensors read from the disk, others copy and hash them, while
    the model takes in the last one; at most about 1 GiB of copies waits.

    Raises:
        WeightsRefusedError: a tensor that is not in host memory, or of another type
            than safetensors has.
    """
    # One more than there are cores, since each waits for the disk now and then.
    threads = min(_THREADS, len(os.sched_getaffinity(0)) + 1)
    waiting: deque[tuple[int, Future[Measured]]] = deque()
    held = 0
    with (
        ThreadPoolExecutor(threads, "attested") as pool,
        ThreadPoolExecutor(1, "attested-read") as reader,
    ):
        for name, mapped in weights:
            _check_kind(name, mapped)
            held += mapped.nbytes
            read = reader.submit(_touch, mapped)
            waiting.append((mapped.nbytes, pool.submit(_measure, name, mapped, read)))
            while len(waiting) > _AHEAD or held > _MAX_WAITING_BYTES:
                size, future = waiting.popleft()
                held -= size
                yield future.result()
        while waiting:
            yield waiting.popleft()[1].result()
