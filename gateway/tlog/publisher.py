"""Signs the head of the log, at most once a second, and has it cosigned.

The last signed head also stands in a file beside the database: a database that was
brought back from a backup, or lost its end, is found out before anything is served.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from attest.errors import AttestError, ConfigurationError, FormatError
from attest.files import write_durably
from attest.keys import PrivateKey
from attest.log.checkpoint import Checkpoint, sign_checkpoint
from attest.log.note import MAX_NOTE, KeyKind, Note, NoteKey, NoteSigner, Signature
from attest.log.proof import majority
from attest.log.tiles import consistency_proof
from attest.manifest import Manifest
from gateway.errors import StartupRefusedError
from gateway.http import httpx
from gateway.logs import log
from gateway.settings import Settings
from gateway.store.log import (
    keep_checkpoint,
    latest_checkpoint,
    log_root,
    log_size,
    read_tile,
)
from gateway.store.records import RecordStore
from gateway.tlog.follower import Follower
from gateway.tlog.witnesses import WitnessClient, WitnessError

__all__ = ["Publisher", "read_log_signer", "read_witnesses"]

INTERVAL_SECONDS = 1.0
_FILE = "log-checkpoint"


def read_log_signer(settings: Settings) -> NoteSigner | None:
    """The key that signs the log's heads, None where no log is kept.

    Raises:
        ConfigurationError: the file is no Ed25519 private key, or the log's name can't
            stand in a checkpoint.
    """
    path = settings.log_key
    if path is None:
        return None
    try:
        signer = NoteSigner(
            settings.log_origin or settings.gateway_id,
            KeyKind.LOG,
            PrivateKey.from_pem(path.read_bytes()),
        )
        _ = signer.key
    except (OSError, FormatError) as error:
        raise ConfigurationError(
            f"log_key: {path}: {getattr(error, 'strerror', None) or error}",
            hint="make one: attest keys new log.key.pem",
        ) from error
    return signer


def read_witnesses(settings: Settings) -> tuple[WitnessClient, ...]:
    """The witnesses to ask.

    Raises:
        ConfigurationError: a vkey is not a witness's.
    """
    found = []
    for item in settings.log_witnesses:
        try:
            key = NoteKey.parse(item.vkey)
        except FormatError as error:
            raise ConfigurationError(f"log_witnesses: {error}") from error
        if key.kind is not KeyKind.WITNESS:
            raise ConfigurationError(f"log_witnesses: {key.name} is no witness's key")
        found.append(WitnessClient(item.url, key))
    return tuple(found)


class Publisher(Follower):
    """One log's public side, and the key that signs its heads."""

    def __init__(
        self,
        store: RecordStore,
        signer: NoteSigner,
        folder: Path,
        witnesses: Sequence[WitnessClient] = (),
    ) -> None:
        assert store.log is not None  # noqa: S101  # whoever has a signer keeps a log
        super().__init__(store, signer.key)
        self._tables = store.log
        self._signer = signer
        self._file = folder / _FILE
        self._witnesses = tuple(witnesses)
        self._client = httpx.AsyncClient(trust_env=False, follow_redirects=False)

    def check_manifest(self, manifest: Manifest) -> None:
        """Refuse a log that verifiers of this manifest would call false.

        Raises:
            StartupRefusedError: the manifest names logs, and this is none of them.
        """
        if manifest.logs and self.key not in manifest.logs:
            raise StartupRefusedError(
                "log: the manifest names other logs",
                hint="sign a manifest with: attest manifest sign --log VKEY",
                expected=", ".join(map(str, manifest.logs)),
                found=str(self.key),
            )

    async def restore(self) -> None:
        """Go on from the last signed head.

        Raises:
            StartupRefusedError: the database is not the one that was signed.
        """
        kept = await self.store.read(latest_checkpoint)
        for text in (self._read_file(), kept):
            if text is not None:
                await self._go_on_from(text)
        if self.note is not None and str(self.note) != kept:
            # The process died between the two: no proof could be given otherwise of
            # what only this head covers, until the log grows.
            await self._keep(self.head, self.note, witnessed=False)

    def _read_file(self) -> str | None:
        try:
            with self._file.open(encoding="utf-8") as file:
                return file.read(MAX_NOTE)
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"log: {self._file}: unreadable") from error

    async def run(self) -> None:
        """Publish what is new, for ever."""
        while True:
            try:
                await self.publish()
            except (AttestError, OSError) as error:
                log.error("log_not_published", reason=type(error).__name__)
            await asyncio.sleep(INTERVAL_SECONDS)

    async def publish(self) -> None:
        """Sign the head if the log has grown, and ask the witnesses.

        Raises:
            AttestError, OSError: it could not be signed or kept; the old head stays.
        """
        await self.refresh()
        # Most or all of the entries may be of others.
        shared = self.store.shared
        size = await self.store.read(log_size) if shared else self._tables.size
        if size <= self.head.size:
            return
        root = await self.store.read(partial(log_root, size=size))
        head = Checkpoint(self._signer.name, size, root)
        note = sign_checkpoint(head, self._signer)
        # Before anybody can see it: a head that was shown must outlive a crash.
        await asyncio.to_thread(write_durably, self._file, str(note).encode())
        await self._keep(head, note, witnessed=False)
        lines = await self._cosigned(head, note)
        if lines:
            enough = len(lines) >= majority(len(self._witnesses))
            whole = Note(note.text, note.signatures + lines)
            await self._keep(head, whole, witnessed=enough)

    async def _keep(self, head: Checkpoint, note: Note, *, witnessed: bool) -> None:
        await self.store.write(
            partial(
                keep_checkpoint, size=head.size, note=str(note), witnessed=witnessed
            )
        )
        self.head, self.note = head, note

    async def _cosigned(self, head: Checkpoint, note: Note) -> tuple[Signature, ...]:
        async def one(witness: WitnessClient) -> Signature | None:
            try:
                return await witness.cosign(self._client, head, note, self._prove)
            except WitnessError as error:
                log.warning("not_cosigned", witness=witness.key.name, reason=str(error))
                return None

        found = await asyncio.gather(*map(one, self._witnesses))
        return tuple(line for line in found if line is not None)

    async def _prove(self, first: int, second: int) -> list[bytes]:
        return await self.store.read(
            lambda reader: consistency_proof(
                first, second, lambda level, tile: read_tile(reader, level, tile)
            )
        )

    async def aclose(self) -> None:
        """Publish the end of the log and close the connections to witnesses."""
        with suppress(AttestError, OSError):
            await self.publish()
        await self._client.aclose()
