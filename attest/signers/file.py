"""A private key in a file that only its owner can read."""

import os
import stat
from pathlib import Path

from attest.errors import ConfigurationError, FormatError
from attest.keys import PrivateKey

__all__ = ["load_file", "write_private_key"]


def load_file(path: str) -> PrivateKey:
    """Read a PKCS#8 PEM.

    Raises:
        ConfigurationError: missing, readable by others, or not a usable key.
    """
    try:
        with Path(path).open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read(64 * 1024)
    except OSError as error:
        raise ConfigurationError(
            f"signer: {path}: {error.strerror}",
            hint=f"make one: attest keys new {path}",
        ) from error
    # Group access stays allowed: Kubernetes mounts secrets 0440 under fsGroup.
    if mode & 0o007:
        raise ConfigurationError(
            f"signer: {path} is open to every user (mode {mode:04o})",
            hint=f"type: chmod 600 {path}",
        )
    try:
        return PrivateKey.from_pem(data)
    except FormatError as error:
        raise ConfigurationError(f"signer: {path}: {error}") from error


def write_private_key(path: Path, key: PrivateKey) -> None:
    """Write the key with mode 0600.

    Raises:
        ConfigurationError: the file exists (none is overwritten), or can't be made.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ConfigurationError(
            f"keys: {path} exists and is not overwritten",
            hint="choose another name, or move the old key away first",
        ) from error
    except OSError as error:
        raise ConfigurationError(f"keys: {path}: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.pem)
