"""What the last start found in the model directory, for one that may rely on it.

A note on the disk is the word of whoever may write there, so nobody relies on it unless
`files_max_age_seconds` says so, and the boot record then says `cached`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from attest.canonical import read_object
from attest.errors import FormatError
from attest.files import write_durably
from gateway.logs import log

__all__ = ["Checked"]

_FILE = "files-checked.json"
_MAX_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Checked:
    """One whole read of a model directory that found the manifest's files.

    Attributes:
        manifest: digest of what they were compared with.
        fingerprint: `stat_fingerprint` from before the first byte was read.
        at: seconds since the epoch when the read was over.
    """

    manifest: str
    fingerprint: str
    at: int

    def keep(self, folder: Path) -> None:
        """Write it down for the next start; a note that can't be written is none."""
        value = {"manifest": self.manifest, "fingerprint": self.fingerprint}
        try:
            write_durably(folder / _FILE, json.dumps({**value, "at": self.at}).encode())
        except OSError as error:
            log.warning("files_not_remembered", reason=error.strerror)

    @classmethod
    def last(cls, folder: Path) -> Self | None:
        """What the last start wrote down; None where that is nothing that can be read.

        The note is not signed: it is NOT evidence.
        """
        try:
            with (folder / _FILE).open("rb") as file:
                value = read_object(file.read(_MAX_BYTES + 1), max_bytes=_MAX_BYTES)
        except (OSError, FormatError):
            return None
        match value:
            case {"manifest": str(manifest), "fingerprint": str(found), "at": int(at)}:
                return cls(manifest, found, at)
        return None

    def covers(
        self, manifest: str, fingerprint: str, *, now: int, max_age: int
    ) -> bool:
        """Whether these are those files, and the read is not too old, or to come."""
        same = (self.manifest, self.fingerprint) == (manifest, fingerprint)
        return same and 0 <= now - self.at <= max_age
