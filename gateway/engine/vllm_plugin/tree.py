"""The tensor tree: one digest for all tensors of a model, however they are sharded.

A second, dependency-free writing of the library's own tensor root, since this folder
travels alone; a test holds the two equal.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

__all__ = ["Tensor", "tensor_root"]


class Tensor(NamedTuple):
    """What the tree says of one tensor.

    Attributes:
        name: as in the checkpoint.
        dtype: safetensors' name of the element type, such as `BF16`.
        shape: sizes, outermost first; empty for a scalar.
        sha256: 64 lower-case hex digits over the raw little-endian bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str

    def leaf(self) -> bytes:
        """The RFC 8785 form of the four fields.

        For ASCII keys, strings and small integers `json` writes what RFC 8785 asks
        for; a lone surrogate in the name raises UnicodeEncodeError.
        """
        fields = self._asdict() | {"shape": list(self.shape)}
        text = json.dumps(
            fields, ensure_ascii=False, separators=(",", ":"), sort_keys=True
        )
        return text.encode()


def _subtree(hashes: Sequence[bytes]) -> bytes:
    if len(hashes) == 1:
        return hashes[0]
    # RFC 6962 §2.1: the left half is the largest power of two smaller than n.
    split = 1 << (len(hashes) - 1).bit_length() - 1
    children = _subtree(hashes[:split]) + _subtree(hashes[split:])
    return hashlib.sha256(b"\x01" + children).digest()


def tensor_root(tensors: Iterable[Tensor]) -> str:
    """The text digest at the top of the RFC 6962 tree.

    Leaves are sorted by the UTF-8 bytes of their names. Names are not checked to be
    unique; the caller does that.

    Raises:
        ValueError: there is no tensor.
    """
    leaves = [t.leaf() for t in sorted(tensors, key=lambda t: t.name.encode())]
    if not leaves:
        raise ValueError("tensor tree: no tensors")
    return (
        "sha256:"
        + _subtree([hashlib.sha256(b"\x00" + leaf).digest() for leaf in leaves]).hex()
    )
