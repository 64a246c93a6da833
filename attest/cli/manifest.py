"""`attest manifest`: sign, verify and show training manifests."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attest.cli import _sign_options as options
from attest.cli._model import (
    DirectoryArgument,
    ModelDigests,
    check_model,
    digest_model,
    digest_verity,
)
from attest.cli._read import (
    AtOption,
    AuthorityOption,
    now,
    read_input,
    read_policy,
    read_public_key,
    read_vkeys,
)
from attest.cli._run import Answer, command, new_app
from attest.cli._sign import (
    read_account,
    read_prompts,
    read_signers,
    refuse_existing,
    serving_dtypes,
    write_new,
)
from attest.cli._text import clean, moment, rendered, status_line
from attest.cli._unverified import NOT_VERIFIED, unverified_manifest
from attest.envelope import MAX_ENVELOPE
from attest.errors import ConfigurationError, FormatError
from attest.hashing import MANIFEST_NAME
from attest.keys import Signer
from attest.lineage import Link, lineage, successors
from attest.log.note import KeyKind
from attest.manifest import Manifest, open_manifest, sign_statement
from attest.recall import Reference, read_reference
from attest.statement import Terms, build_predicate

if TYPE_CHECKING:
    from attest.training.binding import Bound

__all__ = ["app"]

app = new_app("Sign, verify and show training manifests.")

_LIMITS = (
    "that a server loads these weights: the attestation of an answer speaks to that",
    "that the training's own account of itself is true",
)

_File = Annotated[
    str, typer.Argument(metavar="FILE", help="A manifest, or -.", show_default=False)
]

_Chain = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE",
        help="Another manifest: follow parents and earlier versions; repeatable.",
    ),
]


@command(app)
def sign(  # noqa: PLR0913  # one parameter per option
    context: typer.Context,
    directory: DirectoryArgument,
    *,
    key: options.Keys,
    run: options.Run = None,
    statement: options.Statement = None,
    sign_shortfall: options.Shortfalls = None,
    name: options.Name = "",
    version: options.Version = "",
    delegate: options.Delegates = None,
    valid_days: options.ValidDays = 365,
    free_sharding: options.FreeSharding = False,
    fs_verity: options.FsVerity = False,
    dtype: options.Dtypes = None,
    engine: options.Engines = None,
    system_prompt: options.SystemPrompts = None,
    log: options.Logs = None,
    witness: options.Witnesses = None,
    status_uri: options.StatusUri = "",
    status_index: options.StatusIndex = None,
    supersedes: options.Supersedes = "",
    output: options.Output = None,
) -> Answer:
    """Sign a manifest for the model in DIR.

    It lists every file of the directory and every tensor, takes the training's account
    from the run, and allows the runtime that the options describe, nothing else.

    With --run, what the account says of constitution, schedule, data, ledger, profile,
    resistance, trace and weights is first compared with what lies in the run. A
    requirement of the constitution that was missed stops the signing, where the
    constitution wants that.
    """
    path = output or directory / MANIFEST_NAME
    refuse_existing(path)
    # All that can be wrong in a small file is found before gigabytes are read.
    signers = read_signers(key)
    account = read_account(
        context,
        run=run,
        statement=statement,
        name=name,
        version=version,
        shortfalls=sign_shortfall or (),
    )
    delegates = [read_public_key(file) for file in delegate or ()]
    prompts = read_prompts(context, system_prompt or ())
    logs = read_vkeys(log, KeyKind.LOG)
    witnesses = read_vkeys(witness, KeyKind.WITNESS)
    status = _status(status_uri, status_index)
    model = digest_model(context, directory)
    if account.bound is not None and model.root is not None:
        account.bound.check_weights(model.root)
    terms = Terms(
        # For gateways whose clock is a little behind.
        not_before=now() - 60,
        valid_days=valid_days,
        engines=engine or ["vllm"],
        dtypes=serving_dtypes(dtype or (), model.tensors),
        system_prompts=prompts,
        delegates=delegates,
        free_sharding=free_sharding,
        fs_verity=digest_verity(directory) if fs_verity else {},
        logs=logs,
        witnesses=witnesses,
        status=status,
        supersedes=_known([supersedes])[0].digest if supersedes else None,
        shortfalls=sign_shortfall or (),
    )
    manifest, envelope = _signed(model, account.statement, terms, signers)
    write_new(path, envelope)
    return Answer(
        {"path": str(path), **_summary(manifest)},
        lambda: (
            f"signed {_title(manifest)}\n"
            f"by {', '.join(manifest.signed_by)}\n"
            f"{_weights(manifest)}\n"
            f"{_validity(manifest)}\n"
            f"{_bound_lines(account.bound)}"
            f"written to {clean(str(path))}"
        ),
    )


def _bound_lines(bound: "Bound | None") -> str:
    if bound is None:
        return ""
    lines = [status_line("ok", name, what) for name, what in bound.checked]
    return "".join(f"{line}\n" for line in lines)


def _status(uri: str, index: int | None) -> Reference | None:
    """The place in a status list that two options name together."""
    if bool(uri) != (index is not None):
        raise typer.BadParameter("give --status-uri and --status-index, or neither")
    if index is None:
        return None
    try:
        return read_reference(Reference(uri, index).to_json())
    except FormatError as error:
        raise ConfigurationError(str(error)) from error


def _signed(
    model: ModelDigests,
    training: Mapping[str, Any],
    terms: Terms,
    signers: Sequence[Signer],
) -> tuple[Manifest, bytes]:
    try:
        predicate = build_predicate(
            training, subjects=model.files, tensors=model.tensors, terms=terms
        )
        envelope = sign_statement(model.files, predicate, signers)
    except FormatError as error:
        raise ConfigurationError(
            f"nothing was signed: {error}",
            hint="correct the training statement or the model directory",
        ) from error
    authorities = {signer.public.thumbprint: signer.public for signer in signers}
    # Read back as a verifier will, so that a key store's bad signature is seen now.
    manifest = open_manifest(
        envelope, list(authorities.values()), threshold=len(authorities)
    )
    return manifest, envelope


@command(app)
def verify(  # noqa: PLR0913  # one parameter per option
    context: typer.Context,
    file: _File,
    *,
    authority: AuthorityOption,
    threshold: Annotated[
        int, typer.Option(min=1, help="How many of the authorities must have signed.")
    ] = 1,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Compare with this model directory too."),
    ] = None,
    chain: _Chain = None,
    at: AtOption = None,
) -> Answer:
    """Check who signed a manifest, whether it is valid, and whether weights are its.

    Each manifest of the chain must be signed by the same authorities.
    """
    policy = read_policy(authority, threshold=threshold)
    envelope = read_input(file, max_bytes=MAX_ENVELOPE)
    manifest = open_manifest(envelope, policy.authorities, threshold=threshold)
    manifest.check_validity(now() if at is None else at)
    known = [
        open_manifest(
            read_input(path, max_bytes=MAX_ENVELOPE),
            policy.authorities,
            threshold=threshold,
        )
        for path in chain or ()
    ]
    links = lineage(manifest, {item.digest: item for item in known})
    newer = successors(manifest, known)
    if weights is not None:
        check_model(manifest, digest_model(context, weights))
    return Answer(
        {
            "verdict": "proven",
            **_summary(manifest),
            "weights": "not checked" if weights is None else "ok",
            **_chain_json(links, newer),
        },
        lambda: "\n".join(
            [
                status_line("ok", "signature", f"by {', '.join(manifest.signed_by)}"),
                status_line("ok", "validity", _validity(manifest)),
                status_line("not checked", "weights", "no --weights DIR was given")
                if weights is None
                else status_line("ok", "weights", _weights(manifest)),
                *_chain_lines(links, newer),
                f"PROVEN: signed by who you trust: {_title(manifest)}",
                *(f"  not proven: {limit}" for limit in _LIMITS),
            ]
        ),
    )


@command(app)
def show(file: _File, *, chain: _Chain = None) -> Answer:
    """Show what a manifest says. Nothing is verified."""
    manifest, keyids = unverified_manifest(read_input(file, max_bytes=MAX_ENVELOPE))
    known = _known(chain or ())
    links = lineage(manifest, {item.digest: item for item in known})
    newer = successors(manifest, known)

    def text() -> str:
        # Imported here: only `show` needs tables.
        from attest.cli._show import manifest_tree  # noqa: PLC0415

        chained = "".join(f"{line}\n" for line in _chain_lines(links, newer))
        return (
            f"{NOT_VERIFIED}\n{rendered(manifest_tree(manifest, keyids))}\n{chained}"
            "To verify: attest manifest verify FILE --authority authority.pub.pem"
        )

    return Answer(
        {
            "verified": False,
            "manifest": manifest.digest,
            "keyids": list(keyids),
            "subject": dict(manifest.subjects),
            "predicate": manifest.predicate,
            **_chain_json(links, newer),
        },
        text,
    )


def _known(files: Sequence[str]) -> list[Manifest]:
    return [
        unverified_manifest(read_input(file, max_bytes=MAX_ENVELOPE))[0]
        for file in files
    ]


def _chain_json(links: Sequence[Link], newer: Sequence[Manifest]) -> dict[str, Any]:
    chain = [
        {
            "relation": str(link.relation),
            "manifest": link.digest,
            "transformation": link.transformation,
            "model": None if link.manifest is None else _model(link.manifest),
        }
        for link in links
    ]
    return {"chain": chain, "supersededBy": [item.digest for item in newer]}


def _chain_lines(links: Sequence[Link], newer: Sequence[Manifest]) -> list[str]:
    lines = [f"superseded by {_title(item)}" for item in newer]
    for link in links:
        words = f" ({clean(link.transformation)})" if link.transformation else ""
        what = f"{link.digest}, not at hand"
        if link.manifest is not None:
            what = _title(link.manifest)
        lines.append(f"{link.relation} {what}{words}")
    return lines


def _model(manifest: Manifest) -> dict[str, str]:
    return {"name": manifest.model_name, "version": manifest.model_version}


def _summary(manifest: Manifest) -> dict[str, Any]:
    return {
        "manifest": manifest.digest,
        "model": _model(manifest),
        "constitution": manifest.constitution,
        "files": len(manifest.subjects),
        "tensors": manifest.tensor_count,
        "tensorRoot": manifest.tensor_root,
        "signedBy": list(manifest.signed_by),
        "validity": manifest.predicate["validity"],
    }


def _title(manifest: Manifest) -> str:
    name = clean(f"{manifest.model_name} {manifest.model_version}")
    return f"{name}, manifest {manifest.digest}"


def _weights(manifest: Manifest) -> str:
    return (
        f"{len(manifest.subjects)} files, {manifest.tensor_count} tensors, "
        f"root {manifest.tensor_root}"
    )


def _validity(manifest: Manifest) -> str:
    return f"valid from {moment(manifest.not_before)} to {moment(manifest.not_after)}"
