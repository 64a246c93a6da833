"""The digests of a model directory, with a progress bar."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from attest.cli._progress import hashing_progress
from attest.hashing import hash_files, hash_tensors, ignored_files, scan_model
from attest.weights import TensorDigest, tensor_root

__all__ = ["DirectoryArgument", "ModelDigests", "digest_model"]

DirectoryArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="The model directory.", show_default=False)
]


@dataclass(frozen=True, slots=True)
class ModelDigests:
    """What a model directory holds.

    Attributes:
        files: file name to text digest.
        ignored: names of the metadata that a download left behind.
    """

    files: Mapping[str, str]
    tensors: Sequence[TensorDigest]
    ignored: Sequence[str]

    @property
    def root(self) -> str | None:
        """Root of the tensor tree, None where no file holds tensors."""
        return tensor_root(self.tensors) if self.tensors else None


def digest_model(context: typer.Context, directory: Path) -> ModelDigests:
    """Hash every file and every tensor.

    Raises:
        ConfigurationError, FormatError, EvidenceUnavailableError: as
            `attest.hashing` says.
    """
    files = scan_model(directory)
    shards = [file for file in files if file.name.endswith(".safetensors")]
    total = sum(file.size for file in [*files, *shards])
    with hashing_progress(context, total) as progress:
        # Tensors first: a truncated file is named at once, not after gigabytes.
        tensors = hash_tensors(files, progress=progress)
        digests = hash_files(files, progress=progress)
    return ModelDigests(digests, tensors, ignored_files(directory))
