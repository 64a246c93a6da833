"""Reading a model directory: which files it has, and the digests of what they hold.

The edge between the disk and the pure modules. Content alone counts: the name of a
Hugging Face blob promises a digest, and is never believed.
"""

import errno
import hashlib
import os
import re
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from attest.canonical import canonical
from attest.digests import digest
from attest.errors import ConfigurationError, EvidenceUnavailableError, FormatError
from attest.safetensors import TensorSpan, read_header
from attest.weights import TensorDigest

__all__ = [
    "MANIFEST_NAME",
    "SIGNATURE_NAME",
    "ModelFile",
    "hash_files",
    "hash_tensors",
    "ignored_files",
    "scan_model",
    "stat_fingerprint",
    "tensor_files",
]

MANIFEST_NAME = "training-manifest.json"
SIGNATURE_NAME = "model.sig"  # OpenSSF Model Signing

# What huggingface_hub leaves in a folder that it downloaded into (_local_folder.py and
# _tree_cache.py of 1.x). Named one by one: anything else there is an ordinary file.
_DOWNLOAD_METADATA = re.compile(
    r"\.cache/huggingface/(?:\.gitignore(?:\.lock)?|CACHEDIR\.TAG|trees/[^/]+\.json"
    r"|(?:down|up)load/.+\.(?:metadata|lock|incomplete))\Z"
)

# Sizes from 256 KiB to 8 MiB were measured to be equally fast.
_CHUNK = 1 << 20

_T = TypeVar("_T")
_R = TypeVar("_R")
_Progress = Callable[[int], None] | None


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file of a model directory.

    Attributes:
        name: relative to the directory, with `/` between segments.
        path: the file to read, with every symbolic link resolved.
        size: in bytes, when it was listed.
    """

    name: str
    path: Path
    size: int


def scan_model(root: Path) -> tuple[ModelFile, ...]:
    """Every file of a model directory, sorted by the UTF-8 bytes of its name.

    Left out are a manifest and a `model.sig` in the directory itself, since they cannot
    list themselves, and what `ignored_files` gives. Nothing else is: that a file cannot
    matter to the engine is for the signed manifest to say. Where the directory lies and
    what it is called has no effect. Links to files are followed inside the directory
    and, in a Hugging Face snapshot, into the `blobs` beside `snapshots`.

    Raises:
        ConfigurationError: `root` is not a directory, or there is no file to list.
        FormatError: a link that leads elsewhere, to a directory, round in a circle or
            nowhere; something that is not a file; a name that is not UTF-8, or that
            holds a backslash or a character that cannot be printed.
        EvidenceUnavailableError: a directory or file that cannot be read.
    """
    files = [file for file in _walk(root) if not _is_ignored(file.name)]
    files = [f for f in files if f.name not in (MANIFEST_NAME, SIGNATURE_NAME)]
    if not files:
        raise ConfigurationError(
            f"model directory {root}: has no files",
            hint=f"look at what it holds: ls -la {root}",
        )
    return tuple(files)


def ignored_files(root: Path) -> tuple[str, ...]:
    """The names that `scan_model` leaves out: metadata of a Hugging Face download.

    The rule is fixed, and no engine loads what it matches; report it all the same.

    Raises:
        ConfigurationError, FormatError, EvidenceUnavailableError: as `scan_model`.
    """
    return tuple(file.name for file in _walk(root) if _is_ignored(file.name))


def hash_files(
    files: Iterable[ModelFile], *, progress: _Progress = None, threads: int = 2
) -> dict[str, str]:
    """The text digest of each file's content, by name.

    `progress` gets the bytes done since its last call: from worker threads, one call
    at a time, in all the sum of the sizes.

    A file counts as unchanged when its size, inode and times are the same after the
    last byte as before the first. NOT checked: a writer who sets the clock back, who
    writes through a mapping made before, or who comes later. Only an engine that hashes
    the very buffer it loads closes that.

    Raises:
        EvidenceUnavailableError: a file cannot be read, is no longer what was listed,
            or was changed while being read.
    """
    files = tuple(files)
    meter = _Meter(progress)
    digests = _parallel(partial(_hash_file, meter=meter), files, threads, meter)
    return {file.name: found for file, found in zip(files, digests, strict=True)}


def hash_tensors(
    files: Iterable[ModelFile], *, progress: _Progress = None, threads: int = 2
) -> tuple[TensorDigest, ...]:
    """The digest of every tensor in the `*.safetensors` among `files`, sorted by name.

    `progress` and the meaning of "unchanged" are as in `hash_files`.

    Raises:
        FormatError: a file is not strict safetensors, or two hold one tensor name.
        EvidenceUnavailableError: as `hash_files`.
    """
    meter = _Meter(progress)
    owners: dict[str, str] = {}
    tensors: list[TensorDigest] = []
    for file in _safetensors(files):
        with _held(file) as handle:
            spans = _claim(owners, file, handle)
            hash_one = partial(_hash_tensor, handle.fileno(), meter=meter)
            tensors += _parallel(hash_one, spans, threads, meter)
            meter.add(file.size - sum(span.end - span.start for span in spans))
    return tuple(sorted(tensors, key=lambda tensor: tensor.name.encode()))


def tensor_files(files: Iterable[ModelFile]) -> dict[str, str]:
    """Which file holds each tensor, from the headers alone: tensor name to file name.

    Raises:
        FormatError, EvidenceUnavailableError: as `hash_tensors`.
    """
    owners: dict[str, str] = {}
    for file in _safetensors(files):
        with _held(file) as handle:
            _claim(owners, file, handle)
    return owners


def stat_fingerprint(files: Iterable[ModelFile]) -> str:
    """A digest over each file's name, device, inode, size and times: no byte is read.

    Give it a fresh scan: a new file, or a link that now leads elsewhere, shows there
    and nowhere else. Equal fingerprints say that nobody wrote in the ordinary way, not
    that the bytes are the same.

    Raises:
        EvidenceUnavailableError: a file is gone or cannot be looked at.
    """
    rows: list[list[str]] = []
    for file in files:
        with _readable(file.name):
            found = file.path.lstat()
        # As strings: device and inode numbers may pass 2^53.
        rows.append([file.name, *map(str, _identity(found))])
    return digest(canonical(sorted(rows)))


def _walk(root: Path) -> Iterator[ModelFile]:
    """Every file below `root`, manifest and ignored ones too, in order of its name."""
    try:
        real = Path(os.path.realpath(root, strict=True))
    except OSError as error:
        raise ConfigurationError(
            f"model directory {root}: {error.strerror}",
            hint="give the directory that holds config.json and the weights",
        ) from error
    if not real.is_dir():
        raise ConfigurationError(f"model directory {root}: is not a directory")
    allowed = [real]
    if real.parent.name == "snapshots":
        allowed.append(real.parent.parent / "blobs")
    files: list[ModelFile] = []
    pending = [(real, "")]
    while pending:
        directory, prefix = pending.pop()
        with _readable(prefix or str(root)), os.scandir(directory) as found:
            entries = sorted((e.name, e.is_dir(follow_symlinks=False)) for e in found)
        for segment, is_directory in entries:
            _check_name(prefix, segment)
            if is_directory:
                pending.append((directory / segment, f"{prefix}{segment}/"))
            else:
                name = prefix + segment
                files.append(_model_file(name, directory / segment, allowed))
    return iter(sorted(files, key=lambda file: file.name.encode()))


def _check_name(prefix: str, segment: str) -> None:
    # The kernel rules out empty segments, dots, slashes and NUL. The lone surrogates by
    # which the os module shows a name that is not UTF-8 are not printable; nor is what
    # would forge lines in a log.
    if "\\" in segment or not segment.isprintable():
        raise FormatError(
            f"model directory: the name {prefix + segment!a} is not UTF-8, or holds a "
            "backslash or a character that cannot be printed",
            hint="rename the file, then sign the model again",
        )


def _model_file(name: str, path: Path, allowed: Sequence[Path]) -> ModelFile:
    """The file that `path` is or leads to."""
    with _readable(name):
        try:
            target = Path(os.path.realpath(path, strict=True))
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOENT, errno.ENOTDIR):
                raise
            raise FormatError(
                f"model directory: the link {name} leads to no file: {error.strerror}",
                hint=f"see where it leads: readlink {path}",
            ) from error
        found = target.lstat()
    if not any(target.is_relative_to(place) for place in allowed):
        raise FormatError(
            f"model directory: the link {name} leaves the directory and its blobs, "
            f"to {str(target)!a}",
            hint="copy the file into the model directory",
        )
    # Links to directories are refused as well: a few of them make an endless walk.
    if not stat.S_ISREG(found.st_mode):
        raise FormatError(
            f"model directory: {name} is neither a file nor a link to one",
            hint=f"see what it is: stat {path}",
        )
    return ModelFile(name, target, found.st_size)


def _is_ignored(name: str) -> bool:
    return _DOWNLOAD_METADATA.match(name) is not None


def _safetensors(files: Iterable[ModelFile]) -> Iterator[ModelFile]:
    return (file for file in files if file.name.endswith(".safetensors"))


def _claim(
    owners: dict[str, str], file: ModelFile, handle: BinaryIO
) -> tuple[TensorSpan, ...]:
    """The tensors of `file`, entered in `owners`."""
    try:
        spans = read_header(handle, size=file.size)
    except FormatError as error:
        raise FormatError(f"{file.name}: {error}", hint=error.hint) from error
    for span in spans:
        if owner := owners.get(span.name):
            raise FormatError(
                f"{file.name}: tensor {span.name!a:.80} is also in {owner}",
                hint="an engine would load either; delete the file that is left over",
            )
        owners[span.name] = file.name
    return spans


class _Meter:
    """Counts bytes for the caller, and stops all workers when one of them failed.

    A worker that is stopped returns without an error, so that the one to be seen is the
    one that came first. Nobody gets to see what it returned.
    """

    def __init__(self, progress: _Progress) -> None:
        self._progress, self._lock = progress, threading.Lock()
        self.stopped = False

    def add(self, count: int) -> None:
        with self._lock:
            if self._progress is not None:
                self._progress(count)

    @contextmanager
    def stop_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:  # an interrupt too: else it would wait for gigabytes
            self.stopped = True
            raise


def _parallel(
    work: Callable[[_T], _R], items: Sequence[_T], threads: int, meter: _Meter
) -> list[_R]:
    """`work` on each item. Plain threads: hashlib lets go of the interpreter's lock."""

    def attempt(item: _T) -> _R:
        with meter.stop_on_error():
            return work(item)

    with ThreadPoolExecutor(threads) as pool, meter.stop_on_error():
        return list(pool.map(attempt, items))


def _hash_file(file: ModelFile, *, meter: _Meter) -> str:
    with _held(file) as handle:
        return _hash_range(handle.fileno(), 0, file.size, meter=meter)


def _hash_tensor(fd: int, span: TensorSpan, *, meter: _Meter) -> TensorDigest:
    found = _hash_range(fd, span.start, span.end, meter=meter)
    return TensorDigest(span.name, span.dtype, span.shape, found)


def _hash_range(fd: int, start: int, end: int, *, meter: _Meter) -> str:
    """The text digest of [start, end), read without moving the file's position."""
    hasher = hashlib.sha256()
    view = memoryview(bytearray(min(_CHUNK, end - start)))
    while start < end and not meter.stopped:
        count = os.preadv(fd, [view[: end - start]], start)
        if count == 0:
            raise EOFError
        hasher.update(view[:count])
        meter.add(count)
        start += count
    return "sha256:" + hasher.hexdigest()


@contextmanager
def _held(file: ModelFile) -> Iterator[BinaryIO]:
    """An open file that was the one listed, and that nobody wrote to meanwhile."""
    with _readable(file.name):
        # O_NONBLOCK, since opening a FIFO that was put there would wait for a writer.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        handle = os.fdopen(os.open(file.path, flags), "rb")
    with handle, _readable(file.name):
        before = os.fstat(handle.fileno())
        if not stat.S_ISREG(before.st_mode) or before.st_size != file.size:
            raise _changed(file.name, "since it was listed")
        try:
            yield handle
        except EOFError as error:
            raise _changed(file.name, "while being read") from error
        if _identity(os.fstat(handle.fileno())) != _identity(before):
            raise _changed(file.name, "while being read")


def _identity(found: os.stat_result) -> tuple[int, ...]:
    times = found.st_mtime_ns, found.st_ctime_ns
    return found.st_dev, found.st_ino, found.st_size, *times


def _changed(name: str, when: str) -> EvidenceUnavailableError:
    return EvidenceUnavailableError(
        f"{name}: changed {when}",
        hint="stop whatever writes to the model directory, then start again",
    )


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Turn an error of the operating system into one that names the file."""
    try:
        yield
    except OSError as error:
        raise EvidenceUnavailableError(
            f"{name}: cannot be read: {error.strerror}",
            hint="look at the owner and mode of the file, and at the disk",
        ) from error
