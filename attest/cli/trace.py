"""`attest trace`: which principles, layers and training steps are behind an answer."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attest.bundle import MAX_BUNDLE, Bundle
from attest.cli._model import check_model, digest_model
from attest.cli._read import AuthorityOption, PolicyOption, now, read_input, read_policy
from attest.cli._run import Answer, command
from attest.cli._verdict import verdict_answer
from attest.errors import ConfigurationError
from attest.manifest import Manifest
from attest.verify import Verdict, verify

if TYPE_CHECKING:
    from attest.training.trace.exchange import Exchange
    from attest.training.trace.provenance import SignedLedger
    from attest.training.trace.values import Trace

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_LIMITS = (
    "that these steps caused the answer: likeness is no cause",
    "that the ledger is true: it is the trainer's own account",
)


@command(app)
def trace(  # noqa: PLR0913  # one parameter per option
    context: typer.Context,
    file: Annotated[
        str,
        typer.Argument(metavar="BUNDLE", help="A bundle with its bodies, or -."),
    ] = "",
    *,
    run: Annotated[
        Path,
        typer.Option(metavar="DIR", help="The run that made the model: a directory."),
    ],
    model: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The model directory. Default: RUN/model."),
    ] = None,
    prompt: Annotated[
        str, typer.Option(metavar="TEXT", help="Without a bundle: what a user asked.")
    ] = "",
    answer: Annotated[
        str, typer.Option(metavar="TEXT", help="Without a bundle: what was answered.")
    ] = "",
    top: Annotated[
        int, typer.Option(min=0, max=1000, help="How many training steps to name.")
    ] = 10,
    authority: AuthorityOption = None,
    policy: PolicyOption = "",
) -> Answer:
    """Trace one answer to principles, layers and steps of the training ledger.

    A bundle is verified first. Its manifest must be that of this run: ledger, trace
    files, data and weights. Then each named step has a proof that the signed ledger
    holds it. With --prompt and --answer nothing is verified.

    It names training rows by their ids: who may not see the data must not see this.
    """
    if bool(file) == bool(prompt or answer) or bool(prompt) != bool(answer):
        raise typer.BadParameter("give either a BUNDLE or --prompt and --answer")
    directory = model or run / "model"
    if not file:
        if authority or policy:
            raise typer.BadParameter("--authority and --policy are for a BUNDLE")
        return _typed(run, directory, (prompt, answer), top)
    demands = read_policy(authority, policy)
    bundle = Bundle.loads(read_input(file, max_bytes=MAX_BUNDLE))
    at = now()
    verdict = verify(bundle, demands, at=at)
    if not verdict.proven or verdict.manifest is None:
        return verdict_answer(verdict, _LIMITS, policy=demands, at=at)
    from attest.training.trace.exchange import read_exchange  # noqa: PLC0415

    exchange = read_exchange(bundle, verdict.disclosed)
    ledger = _same_run(context, run, directory, verdict.manifest)
    found = _traced(
        run, directory, exchange, top=top, statement=verdict.manifest.predicate
    )
    return _answer(found, ledger, verdict, exchange)


def _typed(run: Path, directory: Path, texts: tuple[str, str], top: int) -> Answer:
    from attest.training.trace.exchange import Exchange  # noqa: PLC0415

    messages = [{"role": "user", "content": texts[0]}]
    exchange = Exchange(texts[1], messages)
    return _answer(_traced(run, directory, exchange, top=top), None, None, exchange)


def _same_run(
    context: typer.Context, run: Path, directory: Path, manifest: Manifest
) -> "SignedLedger":
    """The run's ledger, when ledger, trace, data and weights are those of the manifest.

    Raises:
        VerificationError: one of them is another's.
        EvidenceUnavailableError: the manifest does not say.
    """
    from attest.training.trace.provenance import (  # noqa: PLC0415
        SignedLedger,
        check_data,
        check_trace,
    )

    # Cheapest first: hashing the weights of a large model takes minutes.
    check_trace(run / "trace", manifest)
    check_data(run / "data", manifest)
    ledger = SignedLedger(run / "ledger.jsonl", manifest)
    check_model(manifest, digest_model(context, directory))
    return ledger


def _traced(
    run: Path,
    directory: Path,
    exchange: "Exchange",
    *,
    top: int,
    statement: Mapping[str, Any] | None = None,
) -> "Trace":
    try:
        # Imported here: torch takes seconds, and a false bundle needs none.
        from attest.training.trace.run import RunTracer  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"trace: {error.name} is not installed",
            hint='pip install "attest-gateway[training]"',
        ) from error
    tracer = RunTracer(run, model=directory, statement=statement)
    return tracer.trace(exchange, top=top)


def _answer(
    found: "Trace",
    ledger: "SignedLedger | None",
    verdict: Verdict | None,
    exchange: "Exchange",
) -> Answer:
    from attest.cli._trace import trace_text  # noqa: PLC0415

    proofs = {e.seq: ledger.prove(e.seq) for e in found.events} if ledger else {}
    data: dict[str, Any] = {
        "verified": verdict is not None,
        "tier": None if verdict is None else str(verdict.tier),
        "manifest": verdict.manifest.digest if verdict and verdict.manifest else None,
        "choices": exchange.choices,
        **found.to_json(),
    }
    for event in data["events"]:
        proof = proofs.get(event["seq"])
        event["inclusion"] = None if proof is None else proof.to_json()
    return Answer(data, lambda: trace_text(found, proofs, verdict, _LIMITS))
