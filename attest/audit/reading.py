"""Reads a log on to the head that it shows now."""

from collections.abc import Iterable

from attest.audit.auditor import Auditor, Source
from attest.audit.findings import Finding, Kind
from attest.errors import FormatError
from attest.log.checkpoint import parse_checkpoint
from attest.log.tiles import TILE_WIDTH, Tile, decode_entries, entry_tiles

__all__ = ["audit"]


def audit(
    auditor: Auditor, source: Source, *, wanted: Iterable[bytes] = ()
) -> list[Finding]:
    """Read on to the head that the log shows now.

    Args:
        auditor: what was read before; every definite no is added to its alarms.
        source: a copy of the log.
        wanted: leaves that must be among the entries that are read.

    Raises:
        EvidenceUnavailableError: something can't be had; what was read so far must be
            thrown away.
        FormatError: what was had is no log.
    """
    text = source.get("checkpoint")
    head, _ = parse_checkpoint(text)  # verified when all that it covers was read
    findings: list[Finding] = []
    problem = auditor.shrunk(head)
    if problem is not None:
        findings.append(problem)
    else:
        missing = set(wanted)
        for leaf, record in _records(source, auditor.size, head.size):
            missing.discard(leaf)
            findings += auditor.read(leaf, record, source)
        findings += auditor.accept(text)
        findings += [
            Finding(Kind.NOT_LOGGED, None, f"no entry holds sha256:{leaf.hex()}")
            for leaf in sorted(missing)
        ]
    auditor.alarms += [finding for finding in findings if finding.kind.false]
    return findings


def _records(source: Source, start: int, size: int) -> Iterable[tuple[bytes, str]]:
    for tile in entry_tiles(start, size):
        skip = max(0, start - tile.number * TILE_WIDTH)
        entries = decode_entries(source.get(f"tile/entries/{tile.path}"), tile.width)
        records = _lines(source.get(f"records/{tile.path}"), tile)
        yield from list(zip(entries, records, strict=True))[skip:]


def _lines(data: bytes, tile: Tile) -> list[str]:
    try:
        lines = data.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise FormatError(f"records {tile.path}: not ASCII") from None
    if len(lines) != tile.width + 1 or lines[-1]:
        raise FormatError(f"records {tile.path}: expected {tile.width} lines")
    return lines[:-1]
