"""A signed model directory of a few hundred bytes, for tests that load nothing."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path

from attest.hashing import MANIFEST_NAME, hash_files, hash_tensors, scan_model
from attest.keys import PrivateKey
from attest.manifest import Manifest, open_manifest, sign_statement
from attest.policy import Policy
from attest.signers.file import write_private_key
from attest.statement import Terms, build_predicate

__all__ = ["SignedModel", "sign_directory", "sign_model", "write_safetensors"]

DAY = 24 * 3600


def write_safetensors(path: Path, tensors: dict[str, list[float]]) -> None:
    """A one-dimensional F32 tensor per name."""
    header, data = {}, b""
    for name, values in tensors.items():
        raw = struct.pack(f"<{len(values)}f", *values)
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": "F32", "shape": [len(values)], "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


@dataclass(frozen=True)
class SignedModel:
    """A directory with its manifest, and the keys behind it."""

    root: Path
    authority: PrivateKey
    issuer: PrivateKey

    @property
    def envelope(self) -> bytes:
        return (self.root / MANIFEST_NAME).read_bytes()

    @property
    def manifest(self) -> Manifest:
        return open_manifest(self.envelope, [self.authority.public])

    @property
    def policy(self) -> Policy:
        """That of a client who trusts its authority."""
        return Policy(authorities=(self.authority.public,))

    def write_keys(self, folder: Path) -> None:
        """What a gateway is given: `issuer.pem`, and `authority.pem` to check by."""
        write_private_key(folder / "issuer.pem", self.issuer)
        (folder / "authority.pem").write_bytes(self.authority.public.pem)


def sign_directory(root: Path, *, now: int, **terms: object) -> SignedModel:
    """Make a model in `root` and sign it; `terms` are those of `Terms`."""
    root.mkdir()
    (root / "config.json").write_text('{"model_type": "llama"}')
    (root / "chat_template.jinja").write_text("{{ messages }}")
    write_safetensors(
        root / "model.safetensors", {"embed": [1.0, 2.0, 3.0], "head": [4.0, 5.0]}
    )
    return sign_model(root, "toy", now=now, **terms)


def sign_model(root: Path, name: str, *, now: int, **terms: object) -> SignedModel:
    """Sign the model that is there; `terms` are those of `Terms`."""
    authority, issuer = PrivateKey.generate(), PrivateKey.generate()
    files = scan_model(root)
    subjects = hash_files(files)
    chosen = {"not_before": now - DAY, "dtypes": ["float32"], **terms}
    predicate = build_predicate(
        {"model": {"name": name, "version": "1"}},
        subjects=subjects,
        tensors=hash_tensors(files),
        terms=Terms(delegates=[issuer.public], **chosen),
    )
    (root / MANIFEST_NAME).write_bytes(sign_statement(subjects, predicate, [authority]))
    return SignedModel(root, authority, issuer)
