"""Hashing the parameters that a running model computes with.

Sound only where the parameter is what serves. Where a library keeps a packed copy of a
matrix (oneDNN, for float32 on a CPU), vLLM empties the parameter, and a digest over
what is left would stay the same whatever the copy holds: then it says so.
"""

import hashlib
from typing import Any

import torch

__all__ = ["resident_report"]

# Copied from the device in pieces, so that no second copy of a matrix is needed.
_CHUNK_BYTES = 64 << 20


def resident_report(model: torch.nn.Module) -> dict[str, Any]:
    """Digest over name, type, shape and bytes of every parameter, sorted by name.

    Returns:
        `sound`, whether every parameter holds what serves; `sha256`, 64 hex digits;
        `bytes`, how many were hashed.
    """
    digest, size, sound = hashlib.sha256(), 0, False
    for name, parameter in sorted(model.named_parameters()):
        if parameter.numel() == 0:
            return {"sound": False, "sha256": "", "bytes": 0}
        sound = True
        shape = tuple(parameter.shape)
        digest.update(f"{name}\0{parameter.dtype}\0{shape}\0".encode())
        raw = parameter.detach().contiguous().reshape(-1).view(torch.uint8)
        for piece in raw.split(_CHUNK_BYTES):
            digest.update(piece.cpu().numpy())
        size += raw.numel()
    return {"sound": sound, "sha256": digest.hexdigest(), "bytes": size}
