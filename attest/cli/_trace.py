"""A trace for people."""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from attest.cli._show import heat
from attest.cli._text import clean, rendered, shortened, status_line
from attest.training.trace.provenance import Inclusion
from attest.training.trace.values import EventScore, Trace
from attest.verify import Verdict

__all__ = ["trace_text"]


def trace_text(
    trace: Trace,
    proofs: Mapping[int, Inclusion],
    verdict: Verdict | None,
    limits: Sequence[str],
) -> str:
    """The whole answer: what was verified, shares, steps, and what is not proven."""
    lines = [_verified(verdict), _gain(trace)]
    if trace.governed:
        lines.append(rendered(_tables(trace, proofs)))
        lines += [f"  not proven: {limit}" for limit in limits]
    return "\n".join(lines)


def _verified(verdict: Verdict | None) -> str:
    if verdict is None or verdict.manifest is None:
        return status_line("not checked", "evidence", "a prompt and an answer as typed")
    what = f"proven at tier {verdict.tier}, of the run of {verdict.manifest.digest}"
    return status_line("ok", "bundle", what)


def _gain(trace: Trace) -> str:
    gain = (
        f"governed training made it {trace.gain:+.1f} nats likelier, over "
        f"{trace.tokens} tokens"
    )
    limit = f"{trace.threshold.nats:.1f} nats"
    if not trace.threshold.rows:
        limit += ", which were not chosen on rows of this run"
    if not trace.governed:
        return f"NOT due to governed training: {gain}; the threshold is {limit}"
    return (
        f"{gain}; the threshold is {limit}\n"
        f"shares miss {trace.residual or 0:.1%} of it, at {trace.points} points"
    )


def _tables(trace: Trace, proofs: Mapping[int, Inclusion]) -> RenderableType:
    principles = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("principle", "nats", "share", "leads in", "layers"):
        principles.add_column(name)
    for share in trace.principles:
        principles.add_row(
            Text(shortened(share.principle or "unrouted")),
            f"{share.nats:+.1f}",
            f"{share.nats / trace.gain:.0%}",
            f"{share.support:.0%}",
            f"{heat(share.layers.values())} {_span(list(share.layers))}",
        )
    note = Text(
        "leads in: of 1,000 answers resampled from these tokens, how many it leads",
        style="dim",
    )
    return Group(principles, note, _events(trace.events, proofs))


def _span(units: Sequence[str]) -> str:
    return clean(f"{units[0]} to {units[-1]}") if units else ""


def _events(
    events: Sequence[EventScore], proofs: Mapping[int, Inclusion]
) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("step", "principle", "score", "alike", "rows most alike", "ledger"):
        table.add_column(name)
    for event in events:
        rows = ", ".join(f"{shortened(r.id, 24)} {r.score:.2f}" for r in event.rows)
        proof = proofs.get(event.seq)
        table.add_row(
            str(event.seq),
            Text(shortened(event.principle or "unrouted", 24)),
            f"{event.score:.1f}",
            f"{event.step:.2f}",
            Text(rows or "not at hand"),
            "" if proof is None else f"proven, {len(proof.path)} hashes",
        )
    return table
