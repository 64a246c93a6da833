"""Deciding whether what is being loaded is what the signed manifest says.

No torch and no vLLM in here: it sees names, types, shapes and digests.
"""

import contextlib
import hashlib
import hmac
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .tree import Tensor, tensor_root

__all__ = ["Reference", "WeightCheck", "WeightsRefusedError", "record_refusal"]

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
# A model of a hundred thousand tensors needs about 25 MB.
_MAX_REFERENCE_BYTES = 64 << 20


class WeightsRefusedError(RuntimeError):
    """The weights are not the reference's; the engine must not come up.

    Attributes:
        tensor: its name, empty where the whole set is meant.
        expected: what the reference says.
        found: what is being loaded.
    """

    def __init__(
        self, reason: str, *, tensor: str = "", expected: str = "", found: str = ""
    ) -> None:
        self.reason, self.tensor = reason, tensor
        self.expected, self.found = expected, found
        where = f" {tensor!r}" if tensor else ""
        super().__init__(
            f"attested weights refused: {reason}{where}: "
            f"expected {expected or 'nothing'}, found {found or 'nothing'}"
        )


def record_refusal(error: WeightsRefusedError, path: Path) -> None:
    """Leave the refusal where the gateway looks for it; the first one is kept.

    Best effort: the folder is read-only in some deployments, and the error that is
    being raised stops the engine in any case.
    """
    fields = {
        "reason": error.reason,
        "tensor": error.tensor,
        "expected": error.expected,
        "found": error.found,
    }
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    # A link appears whole or not at all, and never replaces an earlier one.
    with contextlib.suppress(OSError):
        draft.write_text(json.dumps(fields), "ascii")
        try:
            os.link(draft, path)
        finally:
            draft.unlink()


@dataclass(frozen=True)
class Reference:
    """What the gateway read in the signed manifest.

    Attributes:
        root: text digest of the tensor tree.
        tensors: by name; None where the manifest has only the root, so that a wrong
            tensor is found out after the last one instead of at once.
        sha256: 64 hex digits of the file that this was read from.
    """

    root: str
    tensors: dict[str, Tensor] | None
    sha256: str

    @classmethod
    def read(cls, path: Path, sha256: str | None) -> "Reference":
        """The reference in a file, after its digest was compared.

        Without a digest to compare with, whoever may write the file says what is
        loaded; the gateway then finds another root in the evidence.

        Raises:
            WeightsRefusedError: another file than the gateway wrote, or not in its
                form.
            OSError: it cannot be read.
        """
        with path.open("rb") as file:
            data = file.read(_MAX_REFERENCE_BYTES + 1)
        found = hashlib.sha256(data).hexdigest()
        expected = found if sha256 is None else sha256
        if not hmac.compare_digest(found.encode(), expected.encode()):
            raise WeightsRefusedError(
                "the reference file was altered", expected=expected, found=found
            )
        try:
            root, tensors = _parse(data)
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsRefusedError(
                "the reference file is not in its form",
                expected="an object with root and tensors",
                found=type(error).__name__,
            ) from error
        return cls(root, tensors, found)


def _parse(data: bytes) -> tuple[str, dict[str, Tensor] | None]:
    value = json.loads(data)
    root, listed = value["root"], value["tensors"]
    if not _DIGEST.match(root):
        raise ValueError("root")
    if listed is None:
        return root, None
    tensors = {entry["name"]: _tensor(entry) for entry in listed}
    if len(tensors) != len(listed):
        raise ValueError("a name twice")
    return root, tensors


def _tensor(entry: dict[str, Any]) -> Tensor:
    name, dtype, sha256 = entry["name"], entry["dtype"], entry["sha256"]
    shape = tuple(entry["shape"])
    if not (
        isinstance(name, str)
        and isinstance(dtype, str)
        and _DIGEST.match(sha256)
        and all(type(size) is int for size in shape)
    ):
        raise TypeError("an entry of tensors")
    return Tensor(name, dtype, shape, sha256.removeprefix("sha256:"))


@dataclass
class WeightCheck:
    """One pass over the weights: `accept` each tensor, then `finish`."""

    reference: Reference
    seen: dict[str, Tensor] = field(default_factory=dict)

    def accept(self, tensor: Tensor) -> None:
        """Let this tensor through.

        Raises:
            WeightsRefusedError: met before, not in the reference, or different from it.
        """
        if tensor.name in self.seen:
            raise WeightsRefusedError(
                "a tensor comes twice", tensor=tensor.name, found=_words(tensor)
            )
        if self.reference.tensors is not None:
            self._compare(tensor, self.reference.tensors.get(tensor.name))
        self.seen[tensor.name] = tensor

    def _compare(self, tensor: Tensor, listed: Tensor | None) -> None:
        if listed is None:
            raise WeightsRefusedError(
                "a tensor that the manifest does not list",
                tensor=tensor.name,
                found=_words(tensor),
            )
        if (tensor.dtype, tensor.shape) != (listed.dtype, listed.shape):
            raise WeightsRefusedError(
                "another type or shape",
                tensor=tensor.name,
                expected=_words(listed),
                found=_words(tensor),
            )
        if not hmac.compare_digest(tensor.sha256.encode(), listed.sha256.encode()):
            raise WeightsRefusedError(
                "another content",
                tensor=tensor.name,
                expected="sha256:" + listed.sha256,
                found="sha256:" + tensor.sha256,
            )

    def finish(self) -> str:
        """The root over what was seen, after comparing it with the reference's.

        Raises:
            WeightsRefusedError: a listed tensor never came, nothing came, or the root
                differs.
        """
        missing = sorted((self.reference.tensors or {}).keys() - self.seen.keys())
        if missing:
            raise WeightsRefusedError(
                f"{len(missing)} listed tensors were not loaded, the first is",
                tensor=missing[0],
                expected=_words((self.reference.tensors or {})[missing[0]]),
            )
        root = tensor_root(self.seen.values()) if self.seen else ""
        if not hmac.compare_digest(root.encode(), self.reference.root.encode()):
            raise WeightsRefusedError(
                "another tensor root", expected=self.reference.root, found=root
            )
        return root


def _words(tensor: Tensor) -> str:
    return f"{tensor.dtype}{list(tensor.shape)} sha256:{tensor.sha256}"
