"""The tensor tree: one root for the weights of a model, however they are sharded.

A leaf is the RFC 8785 form of {dtype, name, sha256, shape}: safetensors' name of the
dtype, the digest of the raw little-endian bytes as bare hex. Leaves are sorted by the
UTF-8 bytes of the name, and the tree over them is RFC 6962's. The root covers tensors
alone: configuration, tokenizer and templates are for the file digests.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from attest.canonical import canonical
from attest.digests import digest_text, to_hex
from attest.errors import FormatError
from attest.log.merkle import Frontier

# RFC 8785 escapes as the standard library does (§3.2.2.2).
_encode = json.JSONEncoder(ensure_ascii=False).encode

__all__ = ["TensorDigest", "tensor_leaf", "tensor_root"]


@dataclass(frozen=True, slots=True)
class TensorDigest:
    """One tensor as it is stored: `sha256` is the text digest of its raw bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str


def tensor_leaf(tensor: TensorDigest) -> bytes:
    """The data of a tensor's leaf, before RFC 6962 hashes it.

    Raises:
        FormatError: the digest has no text form, or the name or a dimension has no
            canonical form (a lone surrogate, an integer beyond 2^53).
    """
    name, dtype, shape = tensor.name, tensor.dtype, tensor.shape
    if not all(type(size) is int and 0 <= size < 2**53 for size in shape):
        # Refused, or written in a form that nothing here should guess.
        value = {"dtype": dtype, "name": name, "shape": shape}
        return canonical({**value, "sha256": to_hex(tensor.sha256)})
    sizes = ",".join(map(str, shape))
    # What `canonical` would write; a manifest may list thousands of these.
    text = (
        f'{{"dtype":{_encode(dtype)},"name":{_encode(name)},'
        f'"sha256":"{to_hex(tensor.sha256)}","shape":[{sizes}]}}'
    )
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise FormatError("tensor tree: a name has no UTF-8 form") from None


def tensor_root(tensors: Iterable[TensorDigest]) -> str:
    """The text digest that is the root over these tensors, given in any order.

    Raises:
        FormatError: no tensor at all, one name twice, or a tensor without a leaf.
    """
    # The leaf comes first: it refuses a name that has no UTF-8 form to sort by.
    leaves = [(tensor_leaf(tensor), tensor.name.encode()) for tensor in tensors]
    leaves.sort(key=lambda leaf: leaf[1])
    if not leaves:
        raise FormatError("tensor tree: there are no tensors")
    for (_, name), (_, following) in pairwise(leaves):
        if name == following:
            raise FormatError(f"tensor tree: {name.decode()!a:.80} appears twice")
    tree = Frontier()
    for leaf, _ in leaves:
        tree.append(leaf)
    return digest_text(tree.root())
