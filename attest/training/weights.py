"""Model directories on disk: their tensors, and copies of them that differ on purpose.

The copies are what the demo and the tests hold against a manifest: the same tensors in
other files, or other tensors under the same names.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from attest.errors import TrainingError
from attest.training.confinement import tensor_digest
from attest.weights import TensorDigest, tensor_root

__all__ = [
    "cast",
    "copy_with",
    "load_model",
    "load_tensors",
    "reshard",
    "save_tensors",
    "weights_root",
]

_INDEX = "model.safetensors.index.json"

# torch's names to those of safetensors, as its format specification lists them.
_DTYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
}


def load_tensors(directory: Path) -> dict[str, torch.Tensor]:
    """All tensors of a model directory, from however many safetensors files.

    Raises:
        TrainingError: there are none, or a name stands in two files.
    """
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(directory.glob("*.safetensors")):
        for name, tensor in load_file(file).items():
            if name in tensors:
                raise TrainingError(f"{directory}: tensor {name} stands in two files")
            tensors[name] = tensor
    if not tensors:
        raise TrainingError(
            f"{directory}: expected safetensors files, found none",
            hint="give the directory that holds config.json and model.safetensors",
        )
    return tensors


def save_tensors(
    directory: Path, tensors: Mapping[str, torch.Tensor], *, shards: int = 1
) -> None:
    """Write `model.safetensors`, or that many shards and their index.

    Raises:
        TrainingError: more shards than tensors, or fewer than one.
    """
    if not 1 <= shards <= len(tensors):
        raise TrainingError(f"expected 1 to {len(tensors)} shards, found {shards}")
    names = sorted(tensors)
    places: dict[str, str] = {}
    for number in range(shards):
        part = names[
            number * len(names) // shards : (number + 1) * len(names) // shards
        ]
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        file = "model.safetensors" if shards == 1 else file
        content = {name: tensors[name].contiguous() for name in part}
        save_file(content, directory / file, metadata={"format": "pt"})
        (directory / file).chmod(0o644)  # safetensors makes it 0600; engines have users
        places |= dict.fromkeys(part, file)
    if shards > 1:
        size = sum(t.numel() * t.element_size() for t in tensors.values())
        index = {"metadata": {"total_size": size}, "weight_map": places}
        (directory / _INDEX).write_text(json.dumps(index, indent=2) + "\n")


def load_model(directory: Path) -> Any:
    """The causal language model of a directory, on the CPU, in its stored dtype.

    Raises:
        TrainingError: the tensors are not those of the configured architecture.
    """
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory))
    tensors = load_tensors(directory)
    missing, unknown = model.load_state_dict(tensors, strict=False)
    # A tied tensor is stored once.
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    if unknown or set(missing) - tied:
        name = [*unknown, *missing][0]
        raise TrainingError(f"{directory}: tensor {name} does not fit config.json")
    model.tie_weights()
    return model


def weights_root(model: nn.Module) -> str:
    """The tensor root of a model in memory, as if it were saved now, on one process.

    A tied tensor counts once, under the name that comes first, which is the one that
    `save_pretrained` keeps. Not so for an architecture that transformers renames while
    saving: hash its saved directory instead (`attest.hashing.hash_tensors`).

    Raises:
        TrainingError: a tensor has a dtype that safetensors does not know.
    """
    state = model.state_dict()
    twice = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    twice -= {name for name, _ in model.named_parameters()}
    return tensor_root(
        _tensor_digest(name, tensor)
        for name, tensor in state.items()
        if name not in twice
    )


def _tensor_digest(name: str, tensor: torch.Tensor) -> TensorDigest:
    if tensor.dtype not in _DTYPES:
        raise TrainingError(f"tensor {name}: safetensors has no dtype {tensor.dtype}")
    shape, found = tuple(tensor.shape), "sha256:" + tensor_digest(tensor)
    return TensorDigest(name, _DTYPES[tensor.dtype], shape, found)


def cast(directory: Path, out: Path, *, dtype: str = "bfloat16") -> Path:
    """A copy with every tensor rounded to another dtype; returns `out`."""
    _copy_rest(directory, out)
    target = getattr(torch, dtype)
    tensors = load_tensors(directory)
    save_tensors(out, {name: tensor.to(target) for name, tensor in tensors.items()})
    config = json.loads((out / "config.json").read_bytes())
    config["dtype"] = dtype
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return out


def reshard(directory: Path, out: Path, *, shards: int = 2) -> Path:
    """A copy with the same tensors in several files and an index; returns `out`."""
    _copy_rest(directory, out)
    save_tensors(out, load_tensors(directory), shards=shards)
    return out


def copy_with(directory: Path, out: Path, tensors: Mapping[str, torch.Tensor]) -> Path:
    """A copy of every other file, with these tensors; returns `out`."""
    _copy_rest(directory, out)
    save_tensors(out, tensors)
    return out


def _copy_rest(directory: Path, out: Path) -> None:
    try:
        out.mkdir(parents=True)
    except FileExistsError as error:
        raise TrainingError(
            f"{out}: exists already", hint="give a directory that does not exist"
        ) from error
    for file in directory.iterdir():
        if file.is_file() and ".safetensors" not in file.name:
            shutil.copy(file, out)
