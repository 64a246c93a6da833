"""The check of the files before an engine is started: a fast no, with names.

vLLM needs a minute of imports before its loader could say the same. What the engine's
loader hashes later is what binds; this is for the people who have to mend things.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from attest.canonical import read_object
from attest.dmverity import listed_volume
from attest.errors import AttestError, FormatError, ManifestMismatchError
from attest.hashing import ModelFile, hash_files, hash_tensors, scan_model, tensor_files
from attest.manifest import Manifest, check_files, check_tensors
from attest.verity import listed_verity, measure_path
from attest.weights import TensorDigest
from gateway.logs import log
from gateway.volume import check_volume

__all__ = ["CheckedFiles", "Protection", "check_model_directory"]

_MAX_NAMED = 3


class Protection(StrEnum):
    """What keeps files as they were when they were checked.

    STAT: nothing; their times, sizes and inodes are looked at again.
    CACHED: the same, and they were not even read: an earlier start had read them.
    FS_VERITY: the kernel, which refuses every change of any of them.
    DM_VERITY: the kernel, which reads no block that the signed root hash does not
        cover, as long as the device keeps its table and the directory its mount.
    MEMFD: the kernel, since the engine got sealed copies in memory.
    MEMFD_SMALL: the same, but for the safetensors files, which are as with STAT.
    """

    STAT = "stat"
    CACHED = "cached"
    FS_VERITY = "fs-verity"
    DM_VERITY = "dm-verity"
    MEMFD = "memfd"
    MEMFD_SMALL = "memfd-small"


@dataclass(frozen=True, slots=True)
class CheckedFiles:
    """A model directory as it was when it was checked.

    Attributes:
        fingerprint: `stat_fingerprint` from before the first byte was read.
        protection: what keeps it so.
        read_at: when an earlier start read the files, None where this one did.
    """

    fingerprint: str
    protection: Protection
    read_at: int | None = None


def _difference(listed: TensorDigest | None, found: TensorDigest) -> str:
    if listed is None:
        return f"tensor {found.name} is not in the manifest"
    expected, seen = (
        f"{item.dtype} {list(item.shape)} {item.sha256}" for item in (listed, found)
    )
    return f"tensor {found.name}: expected {expected}, found {seen}"


def _differences(manifest: Manifest, files: Sequence[ModelFile]) -> list[str]:
    """One sentence for each tensor in `files` that is not the manifest's."""
    listed = {tensor.name: tensor for tensor in manifest.tensors}
    try:
        owners, found = tensor_files(files), hash_tensors(files)
    except AttestError as unreadable:
        return [str(unreadable)]
    return [
        f"{owners[tensor.name]}: {_difference(listed.get(tensor.name), tensor)}"
        for tensor in found
        if listed.get(tensor.name) != tensor
    ]


def _with_tensors(
    error: ManifestMismatchError, manifest: Manifest, files: Sequence[ModelFile]
) -> ManifestMismatchError:
    """The same error, which now says which file holds which wrong tensor."""
    if not manifest.tensors:
        return error
    # Where sharding is fixed, only a changed file can hold a changed tensor.
    suspects = [f for f in files if manifest.free_sharding or f.name in error.changed]
    details = _differences(manifest, suspects)
    if not details:
        return error
    more = len(details) - _MAX_NAMED
    text = "; ".join(details[:_MAX_NAMED]) + (f"; and {more} more" if more > 0 else "")
    return ManifestMismatchError(
        f"{error}; {text}",
        hint=error.hint,
        changed=error.changed,
        missing=error.missing,
        extra=error.extra,
    )


def _check_index(root: Path, files: Sequence[ModelFile]) -> None:
    """Re-sharded weights bring an index that no signature covers: derive it instead."""
    owners = tensor_files(files)
    for file in files:
        if file.name.endswith(".safetensors.index.json") and "/" not in file.name:
            index = read_object(file.path.read_bytes(), max_bytes=64 * 1024 * 1024)
            if index.get("weight_map") != owners:
                raise ManifestMismatchError(
                    f"weights: {root / file.name} does not say what the files hold",
                    hint="write it again with the tool that split the weights",
                    changed=(file.name,),
                )


def _check_free(root: Path, manifest: Manifest, files: Sequence[ModelFile]) -> None:
    try:
        check_tensors(manifest, hash_tensors(files))
    except FormatError as error:
        raise ManifestMismatchError(f"weights: {error}", hint=error.hint) from error
    _check_index(root, files)


def check_model_directory(
    root: Path, manifest: Manifest, progress: Callable[[int, int], None]
) -> Protection:
    """Return when the directory is the manifest's. Blocks while it reads every byte.

    A file whose fs-verity digest, measured by the kernel, is the one that the manifest
    lists is not read: it can't have other bytes. Nor is any listed file of a directory
    that is the dm-verity volume which the manifest states. Where that can't be told, or
    is not so, the log says why and the files are hashed.

    Args:
        root: the model directory.
        manifest: what it must be.
        progress: gets how many bytes were read, and of how many, from worker threads.

    Returns:
        What keeps the files as they were found.

    Raises:
        ManifestMismatchError: files or tensors differ; names file and tensor.
        FormatError: a link, name or safetensors file that is never accepted; or the
            manifest states fs-verity or dm-verity in another form.
        ConfigurationError, EvidenceUnavailableError: the directory can't be read.
    """
    files = scan_model(root)
    if _is_volume(root, manifest, files):
        known, kept = _listed(manifest, files), Protection.DM_VERITY
    else:
        measured = {file.name: measure_path(file.path) for file in files}
        known = _known(manifest, measured)
        kept = Protection.STAT if None in measured.values() else Protection.FS_VERITY
    unread = [file for file in files if file.name not in known]
    total = sum(file.size for file in unread)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    try:
        check_files(manifest, known | hash_files(unread, progress=advance))
        if manifest.free_sharding:
            _check_free(root, manifest, files)
    except ManifestMismatchError as error:
        raise _with_tensors(error, manifest, files) from error
    return kept


def _is_volume(root: Path, manifest: Manifest, files: Sequence[ModelFile]) -> bool:
    signed = listed_volume(manifest.predicate)
    if signed is None:
        return False
    try:
        check_volume(root, files, signed)
    except AttestError as error:
        # Another volume may hold the same files: their digests tell.
        log.warning("dm_verity_not_used", reason=str(error))
        return False
    return True


def _listed(manifest: Manifest, files: Sequence[ModelFile]) -> dict[str, str]:
    """The listed digest of each file that is there; unlisted ones are for others."""
    listed = manifest.subjects
    return {file.name: listed[file.name] for file in files if file.name in listed}


def _known(manifest: Manifest, measured: Mapping[str, str | None]) -> dict[str, str]:
    """The listed digest of each file that the kernel knows to be the listed one."""
    listed = listed_verity(manifest.predicate)
    return {
        name: manifest.subjects[name]
        for name, found in measured.items()
        if found is not None and found == listed.get(name) and name in manifest.subjects
    }
