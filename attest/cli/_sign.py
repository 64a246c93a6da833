"""Signing a manifest: what is read beside the model itself, and what is written."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from attest.cli._account import TRAINING_FILE
from attest.cli._model import ModelDigests, digest_verity
from attest.cli._read import now, read_input, read_public_key, read_vkeys
from attest.cli._run import say
from attest.cli._sign_options import How
from attest.cli._text import clean
from attest.cli._unverified import unverified_manifest
from attest.envelope import MAX_ENVELOPE
from attest.errors import ConfigurationError, FormatError
from attest.hashing import MANIFEST_NAME
from attest.keys import Signer
from attest.log.note import KeyKind
from attest.manifest import Manifest, open_manifest, sign_statement
from attest.recall import Reference, read_reference
from attest.signers import load_signer
from attest.statement import Terms, build_predicate, serving_dtype
from attest.weights import TensorDigest

__all__ = ["TRAINING_FILE", "Signing", "read_signers", "refuse_existing", "write_new"]


class Signing:
    """A manifest that is about to be signed.

    All that can be wrong in a small file or an option is found when this is made,
    before gigabytes are read.

    Attributes:
        path: where the manifest will be written.
        signers: the authority's keys.

    Raises:
        ConfigurationError: something exists where the manifest is to be written, or a
            key, prompt or other file that an option names cannot be used.
    """

    def __init__(self, context: typer.Context, directory: Path, how: How) -> None:
        self._directory, self._how = directory, how
        self.path = how.output or directory / MANIFEST_NAME
        refuse_existing(self.path)
        self.signers = read_signers(how.key)
        self._delegates = [read_public_key(file) for file in how.delegate or ()]
        self._prompts = _read_prompts(context, how.system_prompt or ())
        self._logs = read_vkeys(how.log, KeyKind.LOG)
        self._witnesses = read_vkeys(how.witness, KeyKind.WITNESS)
        self._status = _status(how.status_uri, how.status_index)
        self._supersedes = how.supersedes and _digest_of(how.supersedes)

    def sign(self, statement: Mapping[str, Any], model: ModelDigests) -> Manifest:
        """Sign, write, and return the manifest as a verifier reads it.

        Raises:
            ConfigurationError: the statement, the options and the model make no
                manifest, or the file cannot be written.
            RunMismatchError, ShortfallError: as `attest.figures.settle`.
            SignerError: a key store cannot sign.
        """
        manifest, envelope = self._signed(statement, model)
        write_new(self.path, envelope)
        return manifest

    def _terms(self, model: ModelDigests) -> Terms:
        how = self._how
        return Terms(
            # For gateways whose clock is a little behind.
            not_before=now() - 60,
            valid_days=how.valid_days,
            engines=how.engine or ["vllm"],
            dtypes=_serving_dtypes(how.dtype or (), model.tensors),
            quantizations=how.quantization or (),
            system_prompts=self._prompts,
            delegates=self._delegates,
            free_sharding=how.free_sharding,
            fs_verity=digest_verity(self._directory) if how.fs_verity else {},
            dm_verity=how.dm_verity,
            logs=self._logs,
            witnesses=self._witnesses,
            status=self._status,
            supersedes=self._supersedes or None,
            shortfalls=how.sign_shortfall or (),
        )

    def _signed(
        self, statement: Mapping[str, Any], model: ModelDigests
    ) -> tuple[Manifest, bytes]:
        terms = self._terms(model)
        try:
            predicate = build_predicate(
                statement, subjects=model.files, tensors=model.tensors, terms=terms
            )
            envelope = sign_statement(model.files, predicate, self.signers)
        except FormatError as error:
            raise ConfigurationError(
                f"nothing was signed: {error}",
                hint="correct the training statement or the model directory",
            ) from error
        authorities = {item.public.thumbprint: item.public for item in self.signers}
        # Read back as a verifier will, so that a key store's bad signature is seen now.
        manifest = open_manifest(
            envelope, list(authorities.values()), threshold=len(authorities)
        )
        return manifest, envelope


def _digest_of(file: str) -> str:
    return unverified_manifest(read_input(file, max_bytes=MAX_ENVELOPE))[0].digest


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


def read_signers(keys: Sequence[str]) -> list[Signer]:
    """The signers that key files, or URIs such as `file:authority.key.pem`, name."""
    return [load_signer(key if ":" in key else f"file:{key}") for key in keys]


def _read_prompts(context: typer.Context, options: Sequence[str]) -> dict[str, str]:
    """System prompts by name, each the exact text of its file.

    Nothing is trimmed: the gateway compares with the text that stands in a request.
    """
    prompts: dict[str, str] = {}
    for option in options:
        name, separator, path = option.partition("=")
        if not (name and separator and path) or name in prompts:
            raise typer.BadParameter("expected distinct --system-prompt NAME=FILE")
        try:
            prompts[name] = read_input(path).decode("utf-8")
        except UnicodeDecodeError:
            raise ConfigurationError(f"{path}: is not UTF-8 text") from None
        if prompts[name].endswith("\n"):
            say(
                context,
                f"note: system prompt {clean(name)} ends with a newline, so requests "
                "must send that newline too",
            )
    return prompts


def _serving_dtypes(given: Sequence[str], tensors: Sequence[TensorDigest]) -> list[str]:
    """The dtypes that were asked for, or the one that the weights are stored in."""
    if given:
        return list(given)
    dtype = serving_dtype(tensors)
    if dtype is None:
        raise ConfigurationError(
            "runtime: the weights do not tell in which dtype they are to be served",
            hint="name it, for example: --dtype bfloat16",
        )
    return [dtype]


def refuse_existing(path: Path) -> None:
    """Raise ConfigurationError when the output would overwrite something."""
    if path.exists():
        raise ConfigurationError(
            f"{path}: exists and is not overwritten",
            hint="move it away, or use --output",
        )


def write_new(path: Path, data: bytes) -> None:
    """Write a file that must not exist yet, wholly or not at all.

    Raises:
        ConfigurationError: it exists or can't be written.
    """
    refuse_existing(path)
    try:
        with path.open("xb") as file:
            try:
                file.write(data)
                file.flush()
            except BaseException:
                path.unlink()
                raise
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be written: {error.strerror}",
            hint="choose another place with --output",
        ) from error
