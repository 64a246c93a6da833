"""Copying a tensor into private memory and hashing that copy."""

import hashlib
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

# SHA-256 runs at 1.5 GB/s per core with SHA-NI, disks and page caches at several times
# that; beyond four threads reading is what takes the time.
_THREADS = 4
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


def _measure(name: str, mapped: torch.Tensor) -> Measured:
    if mapped.dtype not in _DTYPES or mapped.device.type != "cpu":
        raise WeightsRefusedError(
            "a kind of tensor that cannot be measured",
            tensor=name,
            expected="a plain tensor in host memory",
            found=f"{mapped.dtype} on {mapped.device}",
        )
    # The file is only mapped: whoever writes to it changes `mapped` even now. The
    # copy is what is hashed, and the same copy goes on to the model.
    copy = mapped.detach().clone(memory_format=torch.contiguous_format)
    started = time.perf_counter()
    raw = copy.reshape(-1).view(torch.uint8).numpy()
    digest = hashlib.sha256(raw).hexdigest()
    seconds = time.perf_counter() - started
    tensor = Tensor(name, _DTYPES[copy.dtype], tuple(copy.shape), digest)
    return Measured(copy, tensor, seconds)


def measured(weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[Measured]:
    """A private copy of each tensor with its measurement, in the order given.

    Threads copy and hash the next tensors while the model takes in the last one; at
    most about 1 GiB of copies waits.
    """
    threads = min(_THREADS, len(os.sched_getaffinity(0)))
    waiting: deque[tuple[int, Future[Measured]]] = deque()
    held = 0
    with ThreadPoolExecutor(threads, "attested") as pool:
        for name, mapped in weights:
            held += mapped.nbytes
            waiting.append((mapped.nbytes, pool.submit(_measure, name, mapped)))
            while len(waiting) > threads or (held > _MAX_WAITING_BYTES and waiting):
                size, future = waiting.popleft()
                held -= size
                yield future.result()
        while waiting:
            yield waiting.popleft()[1].result()
