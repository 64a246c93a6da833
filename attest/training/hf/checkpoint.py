"""A Trainer's checkpoint and the ledger: each names the other."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch.distributed as dist

from attest.canonical import canonical, read_object
from attest.digests import digest
from attest.errors import FormatError, TrainingError
from attest.files import replace_durably
from attest.training.ledger import Ledger, LedgerSummary

__all__ = ["read_checkpoint", "write_checkpoint"]

_FORMAT = "governed-checkpoint/1"
_OURS = "governance-*.json"
_MAX_BYTES = 4096


def write_checkpoint(folder: Path, ledger: Ledger, place: dict[str, Any]) -> None:
    """Name the ledger's state in the folder, and the folder's digest in the ledger.

    Called when all other files are written, on every rank of a run of several.
    """
    ledger.sync()
    at, members = ledger.summary(), {**place, "digest": _agreed_digest(folder)}
    content = {"format": _FORMAT, "size": at.size, "root": at.root, **members}
    with replace_durably(_file(folder, _rank())) as file:
        file.write(json.dumps(content, indent=2).encode() + b"\n")
    ledger.checkpoint(**members)


def read_checkpoint(folder: Path) -> tuple[LedgerSummary, dict[str, Any]]:
    """The ledger's state at the checkpoint, and what the ledger says of it.

    Raises:
        TrainingError: no governed checkpoint, an unfinished one, or a file in it was
            changed since.
    """
    path = _file(folder, _rank())
    try:
        found = read_object(path.read_bytes(), max_bytes=_MAX_BYTES, max_depth=2)
    except (OSError, FormatError) as error:
        raise TrainingError(
            f"checkpoint {folder}: expected {path.name} of a governed trainer",
            hint="it was not finished, or no governed trainer wrote it; resume from an "
            "earlier one",
        ) from error
    if found.get("format") != _FORMAT:
        raise TrainingError(
            f"checkpoint {folder}: expected {_FORMAT}, found {found.get('format')!r}"
        )
    now = _agreed_digest(folder)
    if found.get("digest") != now:
        raise TrainingError(
            f"checkpoint {folder}: expected files of digest {found.get('digest')}, "
            f"found {now}",
            hint="a file was changed, added or removed; resume from an earlier one",
        )
    members = {key: found[key] for key in ("stage", "step", "digest")}
    return LedgerSummary(found["size"], found["root"]), members


def _agreed_digest(folder: Path) -> str:
    """The digest of all files but ours, as rank 0 sees them."""
    if not dist.is_initialized():
        return _digest(folder)
    dist.barrier()
    found = [_digest(folder) if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(found)
    return str(found[0])


def _digest(folder: Path) -> str:
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and not path.match(_OURS)
    )
    found = []
    for path in files:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        found.append([path.relative_to(folder).as_posix(), content])
    return digest(canonical(found))


def _file(folder: Path, rank: int) -> Path:
    return folder / _OURS.replace("*", f"{rank:05d}")


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0
