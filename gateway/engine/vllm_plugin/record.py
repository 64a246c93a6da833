"""What was loaded in this process, for `attest_report` to tell."""

from dataclasses import dataclass, field
from typing import Any

__all__ = ["RECORD", "LoadRecord"]


@dataclass
class LoadRecord:
    """Passes over the weights since the process began.

    Attributes:
        started: passes begun, refused ones too.
        loads: one report for each pass that was whole and equal to the reference.
    """

    started: int = 0
    loads: list[dict[str, Any]] = field(default_factory=list)


# Of the process, since vLLM keeps no loader after loading.
RECORD = LoadRecord()
