"""The log as a process sees it that adds to it and signs none of its heads."""

from functools import partial

from attest.errors import FormatError, SignatureError
from attest.log.checkpoint import Checkpoint, open_checkpoint
from attest.log.merkle import EMPTY_ROOT
from attest.log.note import Note, NoteKey
from attest.log.tiles import Tile
from gateway.errors import StartupRefusedError
from gateway.store.log import damaged, latest_checkpoint, log_root, log_size
from gateway.store.records import RecordStore

__all__ = ["Follower"]


class Follower:
    """One log's public side, its heads signed elsewhere.

    Attributes:
        store: where the log is.
        key: what the heads are verified with.
        head: the last signed head; readers may see the tree up to there.
        note: it, signed, with the cosignatures that came.
    """

    def __init__(self, store: RecordStore, key: NoteKey) -> None:
        self.store, self.key = store, key
        self.head = Checkpoint(key.name, 0, EMPTY_ROOT)
        self.note: Note | None = None

    async def refresh(self) -> None:
        """Take over the head that another process signed meanwhile.

        So that whoever asks two of them in turn never sees the log shrink.

        Raises:
            StoreError: the database does not answer.
            StartupRefusedError: it is not of this database's log.
        """
        if not self.store.shared:
            return
        text = await self.store.read(latest_checkpoint)
        if text is not None and text != str(self.note):
            await self._go_on_from(text)

    async def _go_on_from(self, text: str) -> None:
        try:
            head, note, _ = open_checkpoint(text, [self.key])
        except (FormatError, SignatureError) as error:
            raise StartupRefusedError(
                f"log: the last head was not signed by this log's key: {error}",
                hint="start with the log_key and log_origin that this log began with",
                found=str(self.key),
            ) from error
        size = await self.store.read(log_size)
        if head.size > size:
            raise damaged(f"it has {size} entries, {head.size} were signed")
        if await self.store.read(partial(log_root, size=head.size)) != head.root:
            raise damaged(f"its first {head.size} entries have another root")
        if head.size >= self.head.size:
            self.head, self.note = head, note

    def covers(self, level: int, tile: Tile) -> bool:
        """Whether the signed tree has all hashes of a tile."""
        return (tile.number * 256 + tile.width) << (8 * level) <= self.head.size
