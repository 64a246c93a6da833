"""`attest ledger`: what a trainer says it did, step by step."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from attest._reader import Reader
from attest.canonical import read_object
from attest.cli._account import TRAINING_FILE
from attest.cli._read import AuthorityOption, read_input, read_policy
from attest.cli._run import Answer, command, new_app
from attest.cli._sign import write_new
from attest.cli._text import clean, shortened, status_line
from attest.cli._unverified import NOT_VERIFIED, unverified_manifest
from attest.cli.exits import ExitCode
from attest.envelope import MAX_ENVELOPE
from attest.errors import ConfigurationError, FormatError
from attest.manifest import open_manifest
from attest.training.ledger import (
    LedgerSummary,
    counted,
    hex_float,
    read_ledger,
    verify_ledger,
)
from attest.training.ledger.contents import Events
from attest.training.ledger.proof import MAX_PROOF_BYTES, parse_proof, prove_record
from attest.training.ledger.ranks import RanksCheck, merge_ledgers

__all__ = ["app"]

app = new_app("Verify training ledgers, show them, prove single records.")

_FILE = "ledger.jsonl"
_LIMIT = "that the trainer did what it logged: only training again shows that"
_MAX_STATEMENT = 4 * 1024 * 1024

_Ledger = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", help=f"A run's directory, or its {_FILE}.", show_default=False
    ),
]
_Manifest = Annotated[
    str,
    typer.Option(metavar="FILE", help="The manifest whose stages state size and root."),
]


@command(app)
def verify(
    ledger: _Ledger, *, manifest: _Manifest = "", authority: AuthorityOption = None
) -> Answer:
    """Compare a ledger with the sizes and roots that were stated for it.

    They are those of --manifest, else those of the run's training.json. Only a manifest
    that --authority signed says that nobody changed the ledger since it was signed.
    """
    path = _path(ledger)
    stated = _stated(ledger, manifest, authority)
    events, ranks = Events(None, None), RanksCheck()

    def visit(record: dict[str, Any]) -> None:
        events.visit(record)
        ranks.visit(record)

    found = verify_ledger(path, *stated.heads, visit=visit)
    events.close()
    ranks.check(path)
    if events.resumed:
        verify_ledger(path, found, *events.resumed)
    known = bool(stated.heads)
    return Answer(
        {
            "verdict": "proven" if known else "unknown",
            "against": stated.source,
            "treeSize": found.size,
            "root": found.root,
            "stages": len(stated.heads),
            "resumptions": len(events.resumed),
            "ranks": ranks.count,
        },
        lambda: "\n".join(
            [
                status_line("ok", "form", f"{found.size} records in order"),
                status_line("ok", "roots", f"{len(stated.heads)} stages")
                if known
                else status_line("unknown", "roots", "none is stated"),
                *_more(len(events.resumed), ranks.count),
                f"PROVEN: the ledger that {clean(stated.source)} states, {found.root}"
                if known
                else "CANNOT TELL: without a stated root whoever edits can renumber",
                *([f"  not proven: {stated.limit}"] if stated.limit and known else []),
                f"  not proven: {_LIMIT}",
            ]
        ),
        ExitCode.OK if known else ExitCode.UNKNOWN,
    )


def _more(resumptions: int, ranks: int) -> list[str]:
    lines = []
    if resumptions:
        detail = f"{resumptions}, each from a state that it had"
        lines.append(status_line("ok", "resumptions", detail))
    if ranks:
        detail = f"{ranks}, each with the root that is named"
        lines.append(status_line("ok", "ranks", detail))
    return lines


@command(app)
def show(
    ledger: _Ledger,
    *,
    record: Annotated[
        int | None, typer.Option(min=0, help="Show the record of this number alone.")
    ] = None,
) -> Answer:
    """Show what a ledger holds. Nothing is verified."""
    path = _path(ledger)
    if record is not None:
        for found in read_ledger(path):
            if found.get("seq") == record:
                return _shown(found)
        raise ConfigurationError(
            f"ledger {path}: has no record {record}", hint="count from 0"
        )
    stages: dict[str, _Stage] = {}
    total = 0
    for item in counted(path):
        total += 1
        if item.get("kind") in ("stage", "step"):  # a list: it may be any JSON
            name = shortened(item.get("stage"))
            stages.setdefault(name, _Stage()).take(item)
    every = Counter(shortened(item.get("kind")) for item in read_ledger(path))
    size = sum(every.values())
    data = {
        "verified": False,
        "treeSize": size,
        "superseded": size - total,
        "kinds": dict(every),
        "stages": {name: stage.to_json() for name, stage in stages.items()},
    }
    return Answer(data, lambda: _summary(data))


@command(app)
def prove(
    ledger: _Ledger,
    record: Annotated[
        int, typer.Argument(metavar="N", min=0, help="Number of the record, from 0.")
    ],
    *,
    manifest: _Manifest = "",
    authority: AuthorityOption = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the proof there.")
    ] = None,
) -> Answer:
    """Prove that one record stands in the ledger, for somebody who has not the ledger.

    The proof leads from the record to the last root that is stated, and from each
    stage's root to the next (RFC 9162). It shows that record and no other.
    """
    path = _path(ledger)
    stated = _stated(ledger, manifest, authority)
    proof = prove_record(path, record, *stated.heads).dumps()
    if output is not None:
        write_new(output, proof)
    text = proof.decode().rstrip() if output is None else f"written to {output}"
    return Answer(json.loads(proof), lambda: text)


@command(app)
def check(
    proof: Annotated[
        str, typer.Argument(metavar="PROOF", help="A proof, or -.", show_default=False)
    ],
    *,
    manifest: Annotated[
        str,
        typer.Option(metavar="FILE", help="The manifest that states size and root."),
    ],
    authority: AuthorityOption = None,
) -> Answer:
    """Check a proof that a record stands in the ledger of a manifest, and show it."""
    stated = _stated(Path(), manifest, authority)
    found = parse_proof(read_input(proof, max_bytes=MAX_PROOF_BYTES)).check(
        stated.heads
    )
    return Answer(
        {"verdict": "proven", "against": stated.source, "record": found},
        lambda: "\n".join(
            [
                f"{clean(key)}: {shortened(value, 200)}"
                for key, value in sorted(found.items())
            ]
            + [f"PROVEN: a record of the ledger that {clean(stated.source)} states"]
            + ([f"  not proven: {stated.limit}"] if stated.limit else [])
            + [f"  not proven: {_LIMIT}"]
        ),
    )


@command(app)
def merge(
    output: Annotated[
        Path, typer.Argument(metavar="OUT", help="Where to write the merged ledger.")
    ],
    ledgers: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="The ledger of every rank.")
    ],
) -> Answer:
    """Make one ledger of those of all ranks that trained together.

    The result is the same in whatever order they are named. A rank or a step that is
    not there is an error.
    """
    merged = merge_ledgers(ledgers, output)
    heads = {
        name: {"treeSize": head.size, "root": head.root}
        for name, head in merged.stages.items()
    }
    return Answer(
        {
            "path": str(output),
            "treeSize": merged.head.size,
            "root": merged.head.root,
            "stages": heads,
        },
        lambda: "\n".join(
            [
                f"{len(ledgers)} ledgers, {merged.head.size} records",
                *(
                    f"stage {clean(name)}: {head.size} records, {head.root}"
                    for name, head in merged.stages.items()
                ),
                f"written to {clean(str(output))}",
            ]
        ),
    )


# --- what is stated -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Stated:
    """Sizes and roots, where they come from, and what that does not show."""

    heads: Sequence[LedgerSummary]
    source: str
    limit: str = ""


def _path(ledger: Path) -> Path:
    return ledger / _FILE if ledger.is_dir() else ledger


def _stated(ledger: Path, manifest: str, authority: Sequence[str] | None) -> _Stated:
    if manifest:
        envelope = read_input(manifest, max_bytes=MAX_ENVELOPE)
        if authority:
            policy = read_policy(authority)
            signed = open_manifest(envelope, policy.authorities)
            return _Stated(
                _heads(signed.predicate, "manifest"), f"manifest {signed.digest}"
            )
        found, _ = unverified_manifest(envelope)
        limit = "who signed the manifest: give --authority"
        heads = _heads(found.predicate, "manifest")
        return _Stated(heads, f"manifest {found.digest}", limit)
    if authority:
        raise typer.BadParameter("--authority needs --manifest")
    statement = ledger / TRAINING_FILE
    if ledger.is_dir() and statement.exists():
        data = read_input(str(statement), max_bytes=_MAX_STATEMENT)
        try:
            heads = _heads(read_object(data, max_bytes=_MAX_STATEMENT), "run")
        except FormatError as error:
            raise ConfigurationError(f"{statement}: {error}") from error
        return _Stated(heads, TRAINING_FILE, f"that nobody changed {TRAINING_FILE} too")
    return _Stated((), "nothing")


def _heads(value: Any, document: str) -> list[LedgerSummary]:
    training = Reader(value, document=document).child("training", optional=True)
    logs = [stage.child("eventLog") for stage in training.children("stages")]
    if not logs:
        raise ConfigurationError(
            f"{document}: states no stage of training, so no ledger",
            hint="name the manifest of the model that was trained",
        )
    return [
        LedgerSummary(log.integer("treeSize", least=0), log.digest("root"))
        for log in logs
    ]


# --- showing ------------------------------------------------------------------------


@dataclass(slots=True)
class _Stage:
    """What the records of one stage say, in a few numbers."""

    steps: int = 0
    principles: Counter[str] = field(default_factory=Counter)
    samples: set[str] = field(default_factory=set)
    losses: tuple[str, str] | None = None

    def take(self, record: dict[str, Any]) -> None:
        if record.get("kind") != "step":
            return
        self.steps += 1
        self.principles[shortened(record.get("principle") or "unrouted")] += 1
        samples = record.get("samples")
        if isinstance(samples, list):
            self.samples.update(map(str, samples))
        loss = _decimal(record.get("loss"))
        self.losses = (self.losses[0] if self.losses else loss, loss)

    def to_json(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "principles": dict(self.principles),
            "samples": len(self.samples),
            "loss": list(self.losses) if self.losses else None,
        }


def _decimal(value: Any) -> str:
    try:
        return f"{hex_float(value):.4f}"
    except (FormatError, TypeError):
        return "unknown"


def _summary(data: dict[str, Any]) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in data["kinds"].items())
    lines = [NOT_VERIFIED, f"{data['treeSize']} records: {kinds or 'none'}"]
    if data["superseded"]:
        lines.append(f"{data['superseded']} of them count no more: the run was resumed")
    for name, stage in data["stages"].items():
        whom = ", ".join(f"{k} {v}" for k, v in stage["principles"].items())
        first, last = stage["loss"] or ("unknown", "unknown")
        lines.append(
            f"stage {name}: {stage['steps']} steps on {stage['samples']} samples "
            f"({whom or 'none'}), loss {first} to {last}"
        )
    lines.append("To verify: attest ledger verify RUN --manifest FILE --authority KEY")
    return "\n".join(lines)


def _shown(record: dict[str, Any]) -> Answer:
    text = [f"{clean(k)}: {shortened(v, 400)}" for k, v in sorted(record.items())]
    return Answer(
        {"verified": False, "record": record},
        lambda: "\n".join([NOT_VERIFIED, *text]),
    )
