"""The file that tells the loader in the engine what it must find."""

import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

from attest.canonical import read_object
from attest.errors import ConfigurationError, FormatError
from attest.manifest import Manifest

__all__ = ["reference_bytes", "share_reference"]

_MAX_BYTES = 64 << 20  # what the loader reads of it


def _content(manifest: Manifest) -> dict[str, Any]:
    tensors = [
        {
            "name": tensor.name,
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "sha256": tensor.sha256,
        }
        for tensor in manifest.tensors
    ]
    return {"root": manifest.tensor_root, "tensors": tensors or None}


def reference_bytes(manifest: Manifest, nonce: str = "") -> bytes:
    """Root and tensors of the manifest; with a nonce no two are alike."""
    extra = {"nonce": nonce} if nonce else {}
    return json.dumps(_content(manifest) | extra).encode()


def _kept(path: Path, manifest: Manifest) -> bytes | None:
    """A reference that an earlier start left for an engine that may still run."""
    try:
        data = path.read_bytes()
        found = read_object(data, max_bytes=_MAX_BYTES)
    except (OSError, FormatError):
        return None
    nonce = found.pop("nonce", None)
    return data if nonce and found == _content(manifest) else None


def share_reference(path: Path, manifest: Manifest) -> str:
    """Write it where an engine that somebody else starts can read it.

    One that is there already and says the same stays, so that an engine which outlives
    the gateway can still be matched with it. An earlier refusal beside it is removed.

    Returns:
        The SHA-256 of the file, 64 hex digits.

    Raises:
        ConfigurationError: the folder can't be written.
    """
    data = _kept(path, manifest)
    try:
        path.with_name("refusal.json").unlink(missing_ok=True)
        if data is None:
            data = reference_bytes(manifest, secrets.token_urlsafe(16))
            draft = path.with_name(f"{path.name}.{os.getpid()}")
            draft.write_bytes(data)
            draft.chmod(0o644)
            draft.replace(path)
    except OSError as error:
        raise ConfigurationError(
            f"reference_file: {path}: {error.strerror}",
            hint="choose a folder that this user may write and the engine's may read",
        ) from error
    return hashlib.sha256(data).hexdigest()
