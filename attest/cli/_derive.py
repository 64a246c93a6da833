"""`attest manifest derive`: the manifest of a model that was made from another."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from attest._reader import Reader
from attest.cli import _manifest as words
from attest.cli import _sign_options as options
from attest.cli._account import Account, read_account, say_shortfalls
from attest.cli._model import (
    DirectoryArgument,
    ModelDigests,
    check_model,
    digest_model,
)
from attest.cli._read import read_input, read_public_key
from attest.cli._run import Answer, say
from attest.cli._sign import Signing
from attest.derivation import Derivation, Rel, derived_statement
from attest.envelope import MAX_ENVELOPE
from attest.errors import (
    ConfigurationError,
    ManifestMismatchError,
    RunMismatchError,
)
from attest.keys import Signer
from attest.manifest import Manifest, open_manifest

__all__ = ["derive"]


@options.takes_how
def derive(  # noqa: PLR0913  # one parameter per option
    context: typer.Context,
    parent: Annotated[
        str,
        typer.Argument(
            metavar="PARENT", help="The parent's manifest.", show_default=False
        ),
    ],
    directory: DirectoryArgument,
    *,
    rel: Annotated[Rel, typer.Option(help="How the model came from its parent.")],
    tool: Annotated[str, typer.Option(help="What made it, with its version.")] = "",
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A setting of that; repeatable."),
    ] = None,
    run: options.Run = None,
    base: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Of a merge: the base model, to make it again."
        ),
    ] = None,
    adapter: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Of a merge: the adapter whose PARENT it is."),
    ] = None,
    authority: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Public key that signed PARENT; repeatable. Default: the --key.",
        ),
    ] = None,
    name: options.Name = "",
    version: options.Version = "",
    how: options.How,
) -> Answer:
    """Sign a manifest for the model in DIR, which was made from another model.

    It names the manifest of the parent, which must be signed. What was measured on the
    parent is taken over where the tensors are equal: a re-sharded model keeps profile,
    evaluation and resistance, marked as carried. A merged one keeps the profile of the
    adapter when --base and --adapter are given and merging them again gives the same
    tensors to the bit. For every other model evaluation and resistance count as not
    measured, so that a requirement of the constitution is missed until a --run
    measures it.
    """
    if bool(base) != bool(adapter) or (base and rel is not Rel.MERGED_FROM):
        raise typer.BadParameter("give --base and --adapter together, for a merge")
    signing = Signing(context, directory, how)
    origin = _opened(parent, authority, signing.signers)
    params = _params(param or ())
    account = None
    if run is not None:
        account = read_account(
            context,
            run=run,
            name=name,
            version=version,
            shortfalls=how.sign_shortfall or (),
        )
        _check_origin(account, origin)
    model = digest_model(context, directory)
    reproduced = False
    if base and adapter:
        reproduced = _reproduced(context, origin, model, base=base, adapter=adapter)
    made = Derivation(rel=rel, tool=tool, params=params, reproduced=reproduced)
    if account is None:
        account = _inherited(origin, made, model, name=name, version=version)
        say_shortfalls(context, account.statement, how.sign_shortfall or ())
    account.check_weights(model.root)
    statement = {**account.statement, "derivation": made.to_json(origin)}
    manifest = signing.sign(statement, model)
    return Answer(
        {
            "path": str(signing.path),
            "parent": origin.digest,
            "reproduced": reproduced,
            **words.summary(manifest),
        },
        lambda: (
            f"{rel} {words.title(origin)}\n"
            f"{words.signed_words(manifest, account.bound, str(signing.path))}"
        ),
    )


def _opened(
    parent: str, authority: Sequence[str] | None, signers: Sequence[Signer]
) -> Manifest:
    """The parent's manifest; nothing is taken over from one that nobody signed."""
    keys = [read_public_key(file) for file in authority or ()]
    trusted = keys or [signer.public for signer in signers]
    return open_manifest(read_input(parent, max_bytes=MAX_ENVELOPE), trusted)


def _params(options: Sequence[str]) -> dict[str, str]:
    params: dict[str, str] = {}
    for option in options:
        name, separator, value = option.partition("=")
        if not (name and separator) or name in params:
            raise typer.BadParameter("expected distinct --param NAME=VALUE")
        params[name] = value
    return params


def _check_origin(account: Account, origin: Manifest) -> None:
    """Return when a run began with the parent's weights, as far as it says."""
    statement = Reader(account.statement, document="training statement")
    stated = statement.child("derivation", optional=True).optional_digest("parent")
    if stated is not None and stated != origin.digest:
        raise RunMismatchError(
            f"run: derivation.parent: expected {origin.digest}, found {stated}",
            hint="name the manifest of the model that the run began with",
        )
    for stage in statement.child("training", optional=True).children("stages")[:1]:
        base = stage.optional_digest("base")
        if base is not None and base != origin.tensor_root:
            raise RunMismatchError(
                f"run: base of the first stage: expected the parent's tensor root "
                f"{origin.tensor_root}, found {base}",
                hint="name the manifest of the model that the run began with",
            )


def _inherited(
    origin: Manifest,
    made: Derivation,
    model: ModelDigests,
    *,
    name: str,
    version: str,
) -> Account:
    # Build metadata of a semantic version: the parent's, and what was done to it.
    done = str(made.rel).partition("-")[0]
    return Account(
        derived_statement(
            origin,
            made,
            model=(
                name or origin.model_name,
                version or f"{origin.model_version}+{done}",
            ),
            subjects=model.files,
            root=model.root or "",
        )
    )


def _reproduced(
    context: typer.Context,
    origin: Manifest,
    model: ModelDigests,
    *,
    base: Path,
    adapter: Path,
) -> bool:
    """Whether merging the parent, an adapter, into its base gives these tensors."""
    derivation = Reader(origin.predicate, "$.predicate").child(
        "derivation", optional=True
    )
    root = derivation.optional_digest("parentWeights")
    if derivation.value.get("rel") != Rel.ADAPTER_OF or root is None:
        raise ConfigurationError(
            "parent: expected the manifest of an adapter, found that of "
            f"{origin.model_name} {origin.model_version}",
            hint="sign the adapter first: attest manifest derive BASE_MANIFEST "
            "ADAPTER_DIR --rel adapter-of",
        )
    check_model(origin, digest_model(context, adapter))
    found = digest_model(context, base).root
    if found != root:
        raise ManifestMismatchError(
            f"weights: {base}: expected tensor root {root}, to which the adapter "
            f"belongs, found {found}",
            hint="give the base model that the adapter was trained on",
        )
    # Imported here: it takes torch and PEFT.
    from attest.training.merge import merged_root  # noqa: PLC0415

    same = merged_root(base, adapter) == model.root
    if not same:
        say(
            context,
            "note: merging again gives other tensors, so the profile is not carried; "
            "merge in the base's dtype with PEFT to have it carried",
        )
    return same
