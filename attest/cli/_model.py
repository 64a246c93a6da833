"""The digests of a model directory, with a progress bar."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from attest.cli._progress import hashing_progress
from attest.errors import (
    EvidenceUnavailableError,
    FormatError,
    ManifestMismatchError,
)
from attest.hashing import hash_files, hash_tensors, ignored_files, scan_model
from attest.manifest import Manifest, check_files, check_tensors
from attest.verity import verity_digest
from attest.weights import TensorDigest, tensor_root

__all__ = [
    "DirectoryArgument",
    "ModelDigests",
    "check_model",
    "digest_model",
    "digest_verity",
]

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
    try:
        return _digest_model(context, directory)
    except FormatError as error:
        hint = error.hint or "it is cut short or damaged: copy the file again"
        raise FormatError(str(error), hint=hint) from error


def _digest_model(context: typer.Context, directory: Path) -> ModelDigests:
    files = scan_model(directory)
    shards = [file for file in files if file.name.endswith(".safetensors")]
    total = sum(file.size for file in [*files, *shards])
    with hashing_progress(context, total) as progress:
        # Tensors first: a truncated file is named at once, not after gigabytes.
        tensors = hash_tensors(files, progress=progress)
        digests = hash_files(files, progress=progress)
    return ModelDigests(digests, tensors, ignored_files(directory))


def digest_verity(directory: Path) -> dict[str, str]:
    """File name to fs-verity digest; another read of every byte.

    Raises:
        ConfigurationError, FormatError: as `scan_model`.
        EvidenceUnavailableError: as `scan_model`, or a file can't be read.
    """
    found = {}
    for file in scan_model(directory):
        try:
            with file.path.open("rb") as handle:
                found[file.name] = verity_digest(handle)
        except OSError as error:
            raise EvidenceUnavailableError(
                f"{file.name}: cannot be read: {error.strerror}"
            ) from error
    return found


def check_model(manifest: Manifest, model: ModelDigests) -> None:
    """Return when files and tensors are exactly the manifest's.

    Raises:
        ManifestMismatchError: they are not; it names the files, and the tensors too.
    """
    try:
        check_files(manifest, model.files)
    except ManifestMismatchError as files:
        try:
            check_tensors(manifest, model.tensors)
        except ManifestMismatchError as tensors:
            raise ManifestMismatchError(
                f"{files}; {_tensor_words(tensors)}",
                hint=files.hint,
                changed=files.changed,
                missing=files.missing,
                extra=files.extra,
            ) from tensors
        raise
    check_tensors(manifest, model.tensors)


def _tensor_words(error: ManifestMismatchError) -> str:
    kinds = {
        "changed": error.changed,
        "missing": error.missing,
        "not listed": error.extra,
    }
    words = [
        f"{kind}: {names[0]}" + (f" and {len(names) - 1} more" if names[1:] else "")
        for kind, names in kinds.items()
        if names
    ]
    return "tensors " + "; ".join(words) if words else str(error)
