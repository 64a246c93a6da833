"""Merging a LoRA adapter into its base once more, to see whether it gives a model."""

import tempfile
from pathlib import Path

from peft import PeftModel
from transformers import AutoModelForCausalLM

from attest.errors import TrainingError
from attest.hashing import hash_tensors, scan_model
from attest.weights import tensor_root

__all__ = ["merge_adapter", "merged_root"]


def merge_adapter(base: Path, adapter: Path, out: Path) -> Path:
    """Write the base with the adapter merged in, in the base's stored dtype.

    PEFT does the arithmetic, on the CPU: a merge that was made elsewhere, in another
    dtype or by another tool may differ in the last bit. Nothing is downloaded.

    Raises:
        TrainingError: the two do not fit, or one of them is none.
    """
    try:
        model = AutoModelForCausalLM.from_pretrained(
            base, dtype="auto", local_files_only=True
        )
        merged = PeftModel.from_pretrained(model, adapter, local_files_only=True)
        merged.merge_and_unload().save_pretrained(out)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise TrainingError(
            f"merge: {adapter} into {base}: {type(error).__name__}",
            hint="give the directory of the base model and that of its PEFT adapter",
        ) from error
    return out


def merged_root(base: Path, adapter: Path) -> str:
    """The tensor root of the base with the adapter merged in.

    Needs room on the disk for one more copy of the model.

    Raises:
        TrainingError: as `merge_adapter`.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = merge_adapter(base, adapter, Path(folder) / "merged")
        return tensor_root(hash_tensors(scan_model(out)))
