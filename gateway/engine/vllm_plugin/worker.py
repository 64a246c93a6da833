"""What vLLM adds to its worker class, so that the API server can ask each worker."""

import os
from typing import Any

from .record import RECORD

__all__ = ["AttestWorkerExtension"]


class AttestWorkerExtension:
    """For `--worker-extension-cls`; holds nothing but the question."""

    def attest_resident(self) -> dict[str, Any]:
        """Digest of what this worker's model holds now; see `resident_report`.

        The worker computes nothing else meanwhile: a second per 1.5 GB or so.
        """
        from .resident import resident_report  # noqa: PLC0415 - imports torch

        model = self.model_runner.get_model()  # type: ignore[attr-defined]  # vLLM's
        return {"rank": getattr(self, "rank", None), **resident_report(model)}

    def attest_report(self) -> dict[str, Any]:
        """This worker's loads.

        `started` counts passes over the weights, `loads` has one entry per pass that
        was whole and equal to the reference: anything but `started == len(loads) == 1`
        means that weights were reloaded or refused since the start. `seconds` is the
        time that all threads together spent hashing.
        """
        return {
            "pid": os.getpid(),
            "rank": getattr(self, "rank", None),
            "started": RECORD.started,
            "loads": RECORD.loads,
        }
