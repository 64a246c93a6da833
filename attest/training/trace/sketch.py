"""Kronecker sketches: a few numbers per tensor that keep inner products on average.

A matrix W becomes P W Qᵀ, a vector v becomes P v. The entries of P and Q are ±1/√side,
so the inner product of two sketches is, over the draw of the signs, the inner product
of what was sketched (Kronecker-factored projections: LoGra, arXiv 2405.13954).
"""

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

__all__ = ["Sketcher"]


class Sketcher:
    """Sketches sets of tensors of known names and shapes.

    The signs are bits of SHAKE-256 over the tensor's name: the same in every process,
    library and version. Tensors of more than two dimensions count as matrices of their
    first dimensions by their last.
    """

    def __init__(self, shapes: Mapping[str, Sequence[int]], *, side: int = 8) -> None:
        self.side = side
        self._shapes = {name: _matrix_shape(shape) for name, shape in shapes.items()}
        self._signs: dict[str, tuple[torch.Tensor, ...]] = {}

    def width(self, names: Sequence[str]) -> int:
        """How many numbers the sketch of these tensors has."""
        return sum(self.side ** len(self._shapes[name]) for name in names)

    def sketch(
        self, tensors: Mapping[str, torch.Tensor], names: Sequence[str]
    ) -> torch.Tensor:
        """The sketches of `names`, in that order, as one float32 vector on the CPU."""
        parts = []
        for name in names:
            shape = self._shapes[name]
            value = tensors[name].detach().reshape(shape).float()
            left, *right = self._matrices(name, value.device)
            projected = left @ value
            parts += [(projected @ right[0].T if right else projected).flatten()]
        return torch.cat(parts).cpu() if parts else torch.zeros(0)

    def _matrices(self, name: str, device: torch.device) -> tuple[torch.Tensor, ...]:
        found = self._signs.get(name)
        if found is None or found[0].device != device:
            found = tuple(
                _signs(f"{name}/{axis}", self.side, size).to(device)
                for axis, size in enumerate(self._shapes[name])
            )
            self._signs[name] = found
        return found


def _matrix_shape(shape: Sequence[int]) -> tuple[int, ...]:
    if len(shape) < 2:
        return (math.prod(shape),)
    return (math.prod(shape[:-1]), shape[-1])


def _signs(seed: str, rows: int, columns: int) -> torch.Tensor:
    count = rows * columns
    data = hashlib.shake_256(seed.encode()).digest(-(-count // 8))
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=count)
    signs = torch.from_numpy(bits.astype(np.float32) * 2 - 1)
    return signs.view(rows, columns) / math.sqrt(rows)
