"""A model folder of sealed copies in memory, which no write to the disk changes.

Each file is copied into a memfd while it is hashed, and the memfd is then sealed: the
kernel refuses every later write, to root too. The engine gets a folder of links to
these descriptors. Tokenizer, configuration and chat template are covered as the weights
are, and the engine needs no plug-in for it. The price is memory of the files' size for
as long as the engine runs.

Only processes of this user can follow the links, since they lead through /proc.
"""

import fcntl
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from attest.digests import digests_equal
from attest.errors import EvidenceUnavailableError, ManifestMismatchError
from attest.hashing import ModelFile

__all__ = ["SealedModel", "seal_model"]

_SHARD = ".safetensors"
_CHUNK = 1 << 20
_SEALS = (
    fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
)


@dataclass
class SealedModel:
    """The folder, and the descriptors that keep the copies alive.

    Attributes:
        folder: what the engine is given.
        size: bytes of memory that the copies take.
    """

    folder: Path
    size: int = 0
    _fds: list[int] = field(default_factory=list)

    def close(self) -> None:
        """Give the memory back, once no process has a copy open any more."""
        while self._fds:
            os.close(self._fds.pop())

    def add(self, file: ModelFile, expected: str) -> None:
        """Copy, compare, seal and link one file.

        Raises:
            ManifestMismatchError: its bytes are not the expected ones.
            EvidenceUnavailableError: it can't be read, or there is no memory for it.
        """
        try:
            fd = os.memfd_create(
                file.name[-200:], os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
            )
            self._fds.append(fd)
            found = _copy(file.path, fd)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        except OSError as error:
            raise EvidenceUnavailableError(
                f"{file.name}: cannot be copied into memory: {error.strerror}",
                hint="look at the memory that is free, or set engine.seal to small",
            ) from error
        if not digests_equal(found, expected):
            raise ManifestMismatchError(
                f"weights: {file.name} changed while being copied: expected "
                f"{expected}, found {found}",
                hint="stop whatever writes to the model directory, then start again",
                changed=(file.name,),
            )
        self.size += file.size
        self.link(file.name, Path(f"/proc/{os.getpid()}/fd/{fd}"))

    def link(self, name: str, target: Path) -> None:
        """Show a file to the engine."""
        path = self.folder / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.symlink_to(target)


def _copy(path: Path, fd: int) -> str:
    hasher = hashlib.sha256()
    source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(source, "rb") as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
            view = memoryview(chunk)
            while view:
                view = view[os.write(fd, view) :]
    return "sha256:" + hasher.hexdigest()


def seal_model(
    files: Sequence[ModelFile],
    subjects: Mapping[str, str],
    folder: Path,
    *,
    shards: bool,
) -> SealedModel:
    """The sealed folder of a model; blocks while it copies.

    Args:
        files: all files of the model directory.
        subjects: their expected text digests, by name.
        folder: an empty private folder to be.
        shards: whether the safetensors files are copied too; else they are linked to.

    Raises:
        ManifestMismatchError: a file is not listed, or is not what is listed.
        EvidenceUnavailableError: a file can't be read or copied.
    """
    folder.mkdir(mode=0o700)
    sealed = SealedModel(folder)
    try:
        for file in files:
            if file.name.endswith(_SHARD) and not shards:
                # The loader hashes what it reads of them.
                sealed.link(file.name, file.path)
            else:
                sealed.add(file, subjects.get(file.name, "nothing"))
    except BaseException:
        sealed.close()
        raise
    return sealed
