"""The demo's training authority: keys, a manifest, and altered copies of a model."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from attest.hashing import MANIFEST_NAME, hash_files, hash_tensors, scan_model
from attest.keys import PrivateKey
from attest.manifest import sign_statement
from attest.safetensors import read_header
from attest.signers.file import write_private_key
from attest.statement import Terms, build_predicate

__all__ = ["World", "change_one_word", "flip_one_bit", "make_keys", "sign_model"]


@dataclass(frozen=True, slots=True)
class World:
    """Where everything of one demo lies."""

    root: Path

    @property
    def run(self) -> Path:
        """What training left behind."""
        return self.root / "run"

    @property
    def model(self) -> Path:
        """The governed model."""
        return self.run / "model"

    @property
    def manifest(self) -> Path:
        """The signed manifest."""
        return self.model / MANIFEST_NAME

    @property
    def authority(self) -> Path:
        """The authority's public key: all that a verifier must be given."""
        return self.root / "authority.pub.pem"

    @property
    def issuer(self) -> Path:
        """The private key that certifies the gateway's session keys."""
        return self.root / "issuer.key.pem"

    @property
    def copies(self) -> Path:
        """Altered copies of the model, each with the manifest of the original."""
        return self.root / "copies"


def make_keys(world: World) -> tuple[PrivateKey, PrivateKey]:
    """Fresh keys of the authority and of the issuer that it will name, on disk too."""
    authority, issuer = PrivateKey.generate(), PrivateKey.generate()
    write_private_key(world.root / "authority.key.pem", authority)
    write_private_key(world.issuer, issuer)
    world.authority.write_bytes(authority.public.pem)
    return authority, issuer


def sign_model(
    world: World,
    authority: PrivateKey,
    issuer: PrivateKey,
    *,
    system_prompts: dict[str, str],
    progress: Callable[[int], None] | None = None,
) -> None:
    """Sign the manifest of what training left in `world.run`."""
    files = scan_model(world.model)
    subjects = hash_files(files, progress=progress)
    predicate = build_predicate(
        json.loads((world.run / "training.json").read_text()),
        subjects=subjects,
        tensors=hash_tensors(files),
        terms=Terms(
            not_before=int(time.time()) - 60,
            valid_days=30,
            dtypes=["float32"],
            system_prompts=system_prompts,
            delegates=[issuer.public],
            free_sharding=True,
        ),
    )
    world.manifest.write_bytes(sign_statement(subjects, predicate, [authority]))


def flip_one_bit(file: Path) -> str:
    """Flip the lowest bit in the middle of the largest tensor; returns its name."""
    with file.open("r+b") as handle:
        spans = read_header(handle, size=file.stat().st_size)
        span = max(spans, key=lambda item: item.end - item.start)
        position = (span.start + span.end) // 2
        handle.seek(position)
        byte = handle.read(1)[0]
        handle.seek(position)
        handle.write(bytes([byte ^ 1]))
    return span.name


def change_one_word(body: bytes) -> bytes:
    """A chat answer whose first word is another one, and nothing else."""
    content = json.loads(body)["choices"][0]["message"]["content"]
    word = content.split()[0]
    return body.replace(
        json.dumps(content)[1:-1].encode(),
        json.dumps(content.replace(word, "certainly", 1))[1:-1].encode(),
        1,
    )
