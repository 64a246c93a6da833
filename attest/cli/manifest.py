"""`attest manifest`: sign, derive, verify and show training manifests."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from attest.cli import _manifest as words
from attest.cli import _sign_options as options
from attest.cli._account import read_account
from attest.cli._derive import derive
from attest.cli._model import DirectoryArgument, check_model, digest_model
from attest.cli._read import AtOption, AuthorityOption, now, read_input, read_policy
from attest.cli._run import Answer, command, new_app
from attest.cli._sign import Signing
from attest.cli._text import rendered, status_line
from attest.cli._unverified import NOT_VERIFIED, unverified_manifest
from attest.cli.exits import ExitCode
from attest.envelope import MAX_ENVELOPE
from attest.errors import FormatError, SignatureError
from attest.lineage import ChainError, check_chain, lineage, successors
from attest.manifest import Manifest, open_manifest
from attest.policy import Policy

__all__ = ["app"]

app = new_app("Sign, derive, verify and show training manifests.")

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
@options.takes_how
def sign(  # noqa: PLR0913  # one parameter per option
    context: typer.Context,
    directory: DirectoryArgument,
    *,
    run: options.Run = None,
    statement: options.Statement = None,
    name: options.Name = "",
    version: options.Version = "",
    how: options.How,
) -> Answer:
    """Sign a manifest for the model in DIR.

    It lists every file of the directory and every tensor, takes the training's account
    from the run, and allows the runtime that the options describe, nothing else.

    With --run, what the account says of constitution, schedule, data, ledger, profile,
    resistance, trace and weights is first compared with what lies in the run. A
    requirement of the constitution that was missed stops the signing, where the
    constitution wants that.
    """
    signing = Signing(context, directory, how)
    account = read_account(
        context,
        run=run,
        statement=statement,
        name=name,
        version=version,
        shortfalls=how.sign_shortfall or (),
    )
    model = digest_model(context, directory)
    account.check_weights(model.root)
    manifest = signing.sign(account.statement, model)
    return Answer(
        {"path": str(signing.path), **words.summary(manifest)},
        lambda: words.signed_words(manifest, account.bound, str(signing.path)),
    )


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

    Each manifest of the chain must be signed by the same authorities, and be what its
    child says of it, back to a model that was derived from none.
    """
    policy = read_policy(authority, threshold=threshold)
    manifest = _opened(file, policy)
    manifest.check_validity(now() if at is None else at)
    known = [_link(path, policy) for path in chain or ()]
    links = lineage(manifest, {item.digest: item for item in known})
    newer = successors(manifest, known)
    missing = check_chain(manifest, links)
    if weights is not None:
        check_model(manifest, digest_model(context, weights))
    # Who asks for a chain and gets a part of it has not got what he asked for.
    unknown = missing is not None and bool(chain)
    verdict = f"PROVEN: signed by who you trust: {words.title(manifest)}"
    if unknown:
        verdict = "CANNOT TELL: the chain is unverified; name the missing link: --chain"
    return Answer(
        {
            "verdict": "unknown" if unknown else "proven",
            **words.summary(manifest),
            "weights": "not checked" if weights is None else "ok",
            "chainVerified": missing is None if chain or not links else None,
            **words.chain_json(links, newer),
        },
        lambda: "\n".join(
            [
                status_line("ok", "signature", f"by {', '.join(manifest.signed_by)}"),
                status_line("ok", "validity", words.validity(manifest)),
                status_line("not checked", "weights", "no --weights DIR was given")
                if weights is None
                else status_line("ok", "weights", words.weights(manifest)),
                *words.chain_lines(links, newer),
                *words.chain_status(links, missing, asked=bool(chain)),
                verdict,
                *(f"  not proven: {limit}" for limit in _LIMITS if not unknown),
            ]
        ),
        ExitCode.UNKNOWN if unknown else ExitCode.OK,
    )


def _opened(file: str, policy: Policy) -> Manifest:
    envelope = read_input(file, max_bytes=MAX_ENVELOPE)
    return open_manifest(envelope, policy.authorities, threshold=policy.threshold)


def _link(file: str, policy: Policy) -> Manifest:
    """A manifest of the chain: one that nobody trusted signed breaks all of it."""
    try:
        return _opened(file, policy)
    except (FormatError, SignatureError) as error:
        raise ChainError(
            f"chain: link {file} is not signed, so the chain is unverified: {error}",
            hint=error.hint,
        ) from error


command(app)(derive)


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

        chained = "".join(f"{line}\n" for line in words.chain_lines(links, newer))
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
            **words.chain_json(links, newer),
        },
        text,
    )


def _known(files: Sequence[str]) -> list[Manifest]:
    return [
        unverified_manifest(read_input(file, max_bytes=MAX_ENVELOPE))[0]
        for file in files
    ]
