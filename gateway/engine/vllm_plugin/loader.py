"""The `attested` load format: what is hashed is the very memory that is loaded."""

import contextlib
import dataclasses
import hashlib
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from vllm.config.load import LoadConfig
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

from .check import Reference, WeightCheck, WeightsRefusedError, record_refusal
from .record import RECORD
from .tree import Tensor

__all__ = ["AttestedLoader", "measured"]

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


@dataclasses.dataclass(frozen=True)
class _Measured:
    copy: torch.Tensor
    tensor: Tensor
    seconds: float


def _measure(name: str, mapped: torch.Tensor) -> _Measured:
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
    return _Measured(copy, tensor, seconds)


def measured(weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[_Measured]:
    """A private copy of each tensor with its measurement, in the order given.

    Threads copy and hash the next tensors while the model takes in the last one; at
    most about 1 GiB of copies waits.
    """
    threads = min(_THREADS, len(os.sched_getaffinity(0)))
    waiting: deque[tuple[int, Future[_Measured]]] = deque()
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


class AttestedLoader(DefaultModelLoader):
    """Loads safetensors and refuses whatever is not in the gateway's reference.

    `model_loader_extra_config` has exactly `reference`, the path of the file, and
    `reference_sha256`, 64 hex digits. Reloads in the running engine pass through
    `get_all_weights` and are checked alike. What no loader sees is not covered:
    adapters, the tokenizer, and what quantization on the fly makes of the weights.

    Raises:
        WeightsRefusedError: at construction, while loading, or after the last tensor;
            also recorded in `refusal.json` beside the reference.
    """

    def __init__(self, load_config: LoadConfig) -> None:
        extra = load_config.model_loader_extra_config
        if not isinstance(extra, dict) or set(extra) != {
            "reference",
            "reference_sha256",
        }:
            raise ValueError(
                "load format attested: model_loader_extra_config needs exactly "
                "reference and reference_sha256"
            )
        path = Path(str(extra["reference"]))
        self._refusal = path.with_name("refusal.json")
        with self._recorded():
            self._reference = Reference.read(path, str(extra["reference_sha256"]))
        # The parent refuses formats and keys that it does not know.
        super().__init__(
            dataclasses.replace(
                load_config, load_format="safetensors", model_loader_extra_config={}
            )
        )

    @contextlib.contextmanager
    def _recorded(self) -> Iterator[None]:
        try:
            yield
        except WeightsRefusedError as error:
            record_refusal(error, self._refusal)
            raise

    def get_all_weights(
        self, model_config: Any, model: Any
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Checked private copies of all tensors that the parent class reads."""
        RECORD.started += 1
        check = WeightCheck(self._reference)
        size, seconds = 0, 0.0
        with self._recorded():
            for item in measured(super().get_all_weights(model_config, model)):
                check.accept(item.tensor)
                size += item.copy.nbytes
                seconds += item.seconds
                yield item.tensor.name, item.copy
            root = check.finish()
        RECORD.loads.append(
            {
                "root": root,
                "count": len(check.seen),
                "bytes": size,
                "seconds": round(seconds, 3),
                "reference_sha256": self._reference.sha256,
            }
        )

    def load_weights(self, model: Any, model_config: Any) -> None:
        """Load all weights into the model, or raise before anybody can use it."""
        complete = len(RECORD.loads)
        super().load_weights(model, model_config)
        with self._recorded():
            if len(RECORD.loads) != complete + 1:
                raise WeightsRefusedError(
                    "the model did not read its weights to the end",
                    expected="one whole pass",
                    found=f"{len(RECORD.loads) - complete} passes",
                )
