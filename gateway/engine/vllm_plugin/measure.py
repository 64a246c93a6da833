"""Copying a tensor into private memory and hashing that copy."""

import contextlib
import ctypes
import hashlib
import mmap
import os
import time
import weakref
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
_AHEAD = 24
_PAGE = 4096
# Read, copied and hashed in turn, so that a large tensor keeps nobody waiting.
_PIECE = 32 << 20
# Copies of this size and more get memory that is used again, in huge pages.
_LARGE = 2 << 20
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


def _bytes_of(mapped: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """A tensor's bytes, in the order of its elements, in pieces."""
    return mapped.detach().contiguous().reshape(-1).view(torch.uint8).split(_PIECE)


def _touch(piece: torch.Tensor) -> None:
    """Have a piece read from the disk: one byte of each page is looked at."""
    piece[::_PAGE].sum()


def _measure(
    name: str,
    mapped: torch.Tensor,
    pieces: Iterable[tuple[torch.Tensor, "Future[None]"]],
    buffers: "_Buffers",
) -> Measured:
    # The file is only mapped: whoever writes to it changes `mapped` even now. The
    # copy is what is hashed, and the same copy goes on to the model.
    copy, hasher, done, seconds = buffers.take(mapped.nbytes), hashlib.sha256(), 0, 0.0
    for piece, read in pieces:
        read.result()
        part = copy[done : done + len(piece)].copy_(piece)
        done += len(piece)
        started = time.perf_counter()
        hasher.update(part.numpy())
        seconds += time.perf_counter() - started
    copy = copy.view(mapped.dtype).view(mapped.shape)
    digest = hasher.hexdigest()
    tensor = Tensor(name, _DTYPES[copy.dtype], tuple(copy.shape), digest)
    return Measured(copy, tensor, seconds)


class _Buffers:
    """Memory for large copies, which is used again when nothing points into it.

    Fresh memory costs a fault for each page, and more where the machine is virtual.
    """

    def __init__(self) -> None:
        self._free: dict[int, list[mmap.mmap]] = {}

    def take(self, size: int) -> torch.Tensor:
        """So many bytes with anything in them."""
        if size < _LARGE:
            return torch.empty(size, dtype=torch.uint8)
        memory = self._take(size)
        view = (ctypes.c_ubyte * size).from_buffer(memory)
        # Every storage holds the view: this comes when the last of them is gone.
        weakref.finalize(view, self._free[size].append, memory).atexit = False
        return torch.frombuffer(view, dtype=torch.uint8)

    def _take(self, size: int) -> mmap.mmap:
        try:
            return self._free.setdefault(size, []).pop()
        except IndexError:
            memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            with contextlib.suppress(OSError):  # a kernel without huge pages
                memory.madvise(mmap.MADV_HUGEPAGE)
            return memory


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
    buffers = _Buffers()
    held = 0
    with (
        ThreadPoolExecutor(threads, "attested") as pool,
        ThreadPoolExecutor(1, "attested-read") as reader,
    ):
        for name, mapped in weights:
            _check_kind(name, mapped)
            held += mapped.nbytes
            pieces = [(p, reader.submit(_touch, p)) for p in _bytes_of(mapped)]
            future = pool.submit(_measure, name, mapped, pieces, buffers)
            waiting.append((mapped.nbytes, future))
            while len(waiting) > _AHEAD or held > _MAX_WAITING_BYTES:
                size, future = waiting.popleft()
                held -= size
                yield future.result()
        while waiting:
            yield waiting.popleft()[1].result()
