"""What signing a manifest reads and writes beside the model itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from attest.canonical import read_object
from attest.cli._read import read_input
from attest.cli._run import say
from attest.cli._text import clean
from attest.errors import ConfigurationError, FormatError
from attest.figures import Settled, settle
from attest.keys import Signer
from attest.signers import load_signer
from attest.statement import serving_dtype
from attest.weights import TensorDigest

if TYPE_CHECKING:
    from attest.training.binding import Bound

__all__ = [
    "TRAINING_FILE",
    "Account",
    "read_account",
    "read_prompts",
    "read_signers",
    "refuse_existing",
    "serving_dtypes",
    "write_new",
]

_MAX_TRAINING = 4 * 1024 * 1024
TRAINING_FILE = "training.json"


def read_signers(keys: Sequence[str]) -> list[Signer]:
    """The signers that key files, or URIs such as `file:authority.key.pem`, name."""
    return [load_signer(key if ":" in key else f"file:{key}") for key in keys]


@dataclass(frozen=True, slots=True)
class Account:
    """What is said about a training.

    Attributes:
        statement: the members that a run may state.
        bound: what it was compared with; None where no run directory was given.
    """

    statement: Mapping[str, Any]
    bound: "Bound | None" = None


def read_account(  # noqa: PLR0913  # one parameter per option
    context: typer.Context,
    *,
    run: Path | None,
    statement: Path | None,
    name: str = "",
    version: str = "",
    shortfalls: Sequence[str] = (),
) -> Account:
    """The training run's account of itself, or the model's name and version alone.

    Says on stderr what could not be compared, and which requirements are missed.

    Raises:
        ConfigurationError: no statement can be read.
        RunMismatchError, LedgerError, ShortfallError: as `attest.training.binding` and
            `attest.figures` say.
    """
    if run and statement:
        raise typer.BadParameter("give either --run or --statement")
    if run is None and statement is None:
        if not (name and version):
            raise typer.BadParameter(
                "give --run or --statement, or else both --name and --version"
            )
        return Account({"model": {"name": name, "version": version}})
    if name or version:
        raise typer.BadParameter("the run says --name and --version itself")
    account = _bound(context, run) if run else Account(_read_statement(statement))
    settled = _settled(account.statement, shortfalls)
    for note in settled.notes:
        say(context, f"note: {note}")
    return account


def _bound(context: typer.Context, run: Path) -> Account:
    # Imported here: YAML and ledgers are for runs alone.
    from attest.training.binding import bind  # noqa: PLC0415

    try:
        bound = bind(run, _read_statement(run / TRAINING_FILE))
    except FormatError as error:
        raise ConfigurationError(f"{run / TRAINING_FILE}: {error}") from error
    for line in bound.unchecked:
        say(context, f"note: not compared: {line}")
    return Account(bound.statement, bound)


def _settled(statement: Mapping[str, Any], shortfalls: Sequence[str]) -> Settled:
    try:
        return settle(statement.get("principles", []), signed=shortfalls)
    except FormatError as error:
        raise ConfigurationError(
            f"nothing was signed: {error}", hint="correct the training statement"
        ) from error


def _read_statement(path: Path | None) -> dict[str, Any]:
    data = read_input(str(path), max_bytes=_MAX_TRAINING)
    try:
        return read_object(data, max_bytes=_MAX_TRAINING)
    except FormatError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def read_prompts(context: typer.Context, options: Sequence[str]) -> dict[str, str]:
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


def serving_dtypes(given: Sequence[str], tensors: Sequence[TensorDigest]) -> list[str]:
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
