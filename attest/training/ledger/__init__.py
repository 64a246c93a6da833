"""The training ledger: what a trainer says it did, one record per optimizer step.

A JSONL file of RFC 8785 lines. Each line without its newline is a leaf of an RFC 6962
tree whose size and root go into the signed manifest. Record n carries `"seq": n`.

It proves what the trainer wrote, at the latest when the root was signed. It does not
prove that the trainer did it: a lying trainer can log a run that it never made.
"""

from attest.training.ledger.form import (
    MAX_RECORD_BYTES,
    LedgerCutError,
    LedgerEditedError,
    LedgerOrderError,
    LedgerSummary,
    Rank,
    float_hex,
    hex_float,
)
from attest.training.ledger.reading import counted, read_ledger, verify_ledger
from attest.training.ledger.writer import Ledger

__all__ = [
    "MAX_RECORD_BYTES",
    "Ledger",
    "LedgerCutError",
    "LedgerEditedError",
    "LedgerOrderError",
    "LedgerSummary",
    "Rank",
    "counted",
    "float_hex",
    "hex_float",
    "read_ledger",
    "verify_ledger",
]
