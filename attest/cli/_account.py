"""What a training run says of itself, read and compared before it is signed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from attest.canonical import read_object
from attest.cli._read import read_input
from attest.cli._run import say
from attest.errors import ConfigurationError, FormatError
from attest.figures import settle

if TYPE_CHECKING:
    from attest.training.binding import Bound

__all__ = ["TRAINING_FILE", "Account", "read_account", "say_shortfalls"]

_MAX_TRAINING = 4 * 1024 * 1024
TRAINING_FILE = "training.json"


@dataclass(frozen=True, slots=True)
class Account:
    """What is said about a training.

    Attributes:
        statement: the members that a run may state.
        bound: what it was compared with; None where no run directory was given.
    """

    statement: Mapping[str, Any]
    bound: "Bound | None" = None

    def check_weights(self, root: str | None) -> None:
        """Return when the tensor root of the model is the run's, if there is a run.

        Raises:
            RunMismatchError: as `Bound.check_weights`.
        """
        if self.bound is not None and root is not None:
            self.bound.check_weights(root)


def read_account(  # noqa: PLR0913  # one parameter per option
    context: typer.Context,
    *,
    run: Path | None,
    statement: Path | None = None,
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
    say_shortfalls(context, account.statement, shortfalls)
    return account


def say_shortfalls(
    context: typer.Context, statement: Mapping[str, Any], signed: Sequence[str]
) -> None:
    """Return when the statement may be signed; says on stderr what it falls short of.

    Raises:
        ConfigurationError, RunMismatchError, ShortfallError: as `settle`.
    """
    try:
        settled = settle(statement.get("principles", []), signed=signed)
    except FormatError as error:
        raise ConfigurationError(
            f"nothing was signed: {error}", hint="correct the training statement"
        ) from error
    for note in settled.notes:
        say(context, f"note: {note}")


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


def _read_statement(path: Path | None) -> dict[str, Any]:
    data = read_input(str(path), max_bytes=_MAX_TRAINING)
    try:
        return read_object(data, max_bytes=_MAX_TRAINING)
    except FormatError as error:
        raise ConfigurationError(f"{path}: {error}") from error
