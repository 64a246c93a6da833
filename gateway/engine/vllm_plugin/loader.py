"""The `attested` load format: what is hashed is the very memory that is loaded."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from vllm.config.load import LoadConfig
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

from .check import Reference, WeightCheck, WeightsRefusedError, record_refusal
from .measure import measured
from .record import RECORD

__all__ = ["AttestedLoader"]

_KEYS = {"reference", "reference_sha256", "report"}


class AttestedLoader(DefaultModelLoader):
    """Loads safetensors and refuses whatever is not in the gateway's reference.

    `model_loader_extra_config` has `reference`, the path of the file, and may have
    `reference_sha256`, 64 hex digits, and `report`, the path of a file that the
    evidence plug-in writes once all workers have loaded. Reloads in the running engine
    pass through `get_all_weights` and are checked alike. What no loader sees is not
    covered: adapters, the tokenizer, and what quantization on the fly makes of the
    weights.

    Raises:
        WeightsRefusedError: at construction, while loading, or after the last tensor;
            also recorded in `refusal.json` beside the reference.
    """

    def __init__(self, load_config: LoadConfig) -> None:
        extra = load_config.model_loader_extra_config
        if (
            not isinstance(extra, dict)
            or "reference" not in extra
            or not set(extra) <= _KEYS
        ):
            raise ValueError(
                "load format attested: model_loader_extra_config needs reference, and "
                "may have reference_sha256 and report"
            )
        path = Path(str(extra["reference"]))
        self._refusal = path.with_name("refusal.json")
        with self._recorded():
            self._reference = Reference.read(path, extra.get("reference_sha256"))
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
