"""The demo's training authority: its keys, and altered copies of a model."""

import json
from dataclasses import dataclass
from pathlib import Path

from attest.hashing import MANIFEST_NAME
from attest.keys import PrivateKey
from attest.safetensors import read_header
from attest.signers.file import write_private_key

__all__ = ["World", "change_one_word", "flip_one_bit", "make_keys", "sign_arguments"]


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
    def authority_key(self) -> Path:
        """The authority's private key; a real one never lies beside a gateway."""
        return self.root / "authority.key.pem"

    @property
    def issuer(self) -> Path:
        """The private key that certifies the gateway's session keys."""
        return self.root / "issuer.key.pem"

    @property
    def copies(self) -> Path:
        """Altered copies of the model, each with the manifest of the original."""
        return self.root / "copies"


def make_keys(world: World) -> None:
    """Fresh key pairs of the authority and of the issuer that it will name."""
    for name, private in (("authority", world.authority_key), ("issuer", world.issuer)):
        key = PrivateKey.generate()
        write_private_key(private, key)
        (world.root / f"{name}.pub.pem").write_bytes(key.public.pem)


def sign_arguments(world: World, prompts: dict[str, str]) -> list[str]:
    """The `attest` command that signs what training left, as a trainer would type it.

    Everything in the run is held against its statement first. Prompts go into files.
    """
    options = []
    for name, text in prompts.items():
        file = world.root / f"prompt-{name}.txt"
        file.write_text(text, encoding="utf-8")
        options += ["--system-prompt", f"{name}={file}"]
    return [
        *("manifest", "sign", str(world.model)),
        *("--run", str(world.run)),
        *("--key", str(world.authority_key)),
        *("--delegate", str(world.root / "issuer.pub.pem")),
        *("--valid-days", "30", "--free-sharding"),
        *options,
    ]


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
