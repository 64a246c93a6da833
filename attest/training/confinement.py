"""Seeing that tensors are what they were: SHA-256, and a checksum that costs a read."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from attest.canonical import canonical
from attest.digests import digest
from attest.errors import TrainingError

__all__ = [
    "CHECKSUM",
    "ConfinementError",
    "Watch",
    "checksums",
    "digests",
    "joint_digest",
    "local_of",
    "tensor_digest",
]

# The method's name in the ledger: the sum of a tensor's bytes as little-endian 64-bit
# words, modulo 2^64; a last word of fewer bytes is added byte by byte. It finds every
# single change and every random one, and none that is built to cancel out.
CHECKSUM = "sum64/1"

Measure = Callable[[Mapping[str, torch.Tensor]], dict[str, Any]]


class ConfinementError(TrainingError):
    """A tensor changed that no step was allowed to change."""

    code = "confinement"


def local_of(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor without autograd; of a sharded one, this rank's part."""
    inner = tensor.detach()
    to_local = getattr(inner, "to_local", None)
    return inner if to_local is None else to_local()


def tensor_digest(tensor: torch.Tensor) -> str:
    """Hex SHA-256 over the raw little-endian bytes of a tensor, whatever its dtype."""
    return hashlib.sha256(_bytes(tensor).cpu().numpy()).hexdigest()


def digests(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """`tensor_digest` of each."""
    return {name: tensor_digest(tensor) for name, tensor in tensors.items()}


def joint_digest(found: Mapping[str, str]) -> str:
    """One digest over names and digests: of the RFC 8785 form of the sorted pairs."""
    return digest(canonical([[name, found[name]] for name in sorted(found)]))


def checksums(tensors: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """`CHECKSUM` of each, computed where the tensors lie."""
    sums: dict[torch.device, list[tuple[str, torch.Tensor]]] = {}
    for name, tensor in tensors.items():
        sums.setdefault(tensor.device, []).append((name, _sum(_bytes(tensor))))
    return {
        name: value
        for pairs in sums.values()
        for (name, _), value in zip(
            pairs, torch.stack([total for _, total in pairs]).tolist(), strict=True
        )
    }


class Watch:
    """Measures tensors before and after something that must not change them.

    A tensor that was measured and not released since is not measured again before:
    its last value counts, so a change in between is found too.
    """

    def __init__(
        self,
        measure: Measure,
        tensors: Mapping[str, torch.Tensor],
        *,
        known: Mapping[str, Any] | None = None,
    ) -> None:
        self._measure, self._tensors = measure, tensors
        self._known: dict[str, Any] = dict(known or {})

    def known(self) -> dict[str, Any]:
        """The values that count now."""
        return dict(self._known)

    def prepare(self, names: Iterable[str]) -> None:
        """Measure those whose value is not known."""
        fresh = [name for name in names if name not in self._known]
        self._known |= self._look(fresh)

    def release(self, names: Iterable[str]) -> None:
        """These may change from now on."""
        for name in names:
            self._known.pop(name, None)

    def verify(self, names: Iterable[str] | None = None) -> dict[str, Any]:
        """Measure the named tensors, or all whose value is known, and compare.

        Returns what was measured.

        Raises:
            ConfinementError: one of them changed; names it.
        """
        wanted = sorted(self._known if names is None else names)
        found = self._look(wanted)
        changed = [name for name in wanted if found[name] != self._known[name]]
        if changed:
            raise ConfinementError(
                f"confinement: {len(changed)} tensors outside the band changed, "
                f"first {changed[0]}",
                hint="something besides the router changes the model; the run stops "
                "and its ledger is kept",
            )
        return found

    def _look(self, names: Iterable[str]) -> dict[str, Any]:
        return self._measure({name: local_of(self._tensors[name]) for name in names})


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().flatten().view(torch.uint8)


def _sum(data: torch.Tensor) -> torch.Tensor:
    whole = data.numel() // 8 * 8
    if data.storage_offset() % 8:
        data = data.clone()
    words, rest = data[:whole].view(torch.int64), data[whole:]
    return words.sum() + rest.sum(dtype=torch.int64)
