"""How every command ends: one answer on stdout, talk on stderr, one exit code.

A command is a function that returns an `Answer` or raises. `--format` and `--quiet` are
added to all of them here. JSON stands alone on stdout; errors and progress never do.
"""

import functools
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer

from attest.cli._text import clean
from attest.cli.exits import ExitCode, exit_code
from attest.errors import AttestError, ManifestMismatchError

__all__ = ["Answer", "Format", "command", "fail", "is_quiet", "new_app", "say"]

_FORMAT, _QUIET = "attest.format", "attest.quiet"


class Format(StrEnum):
    """What stdout is for."""

    TEXT = "text"
    JSON = "json"
    EAR = "ear"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command found.

    Attributes:
        data: for `--format json`.
        ear: for `--format ear`: an attestation result. Other commands than those that
            verify have none, and refuse that format.
        text: makes the words for people, without a newline at the end. Whatever came
            from outside must have passed `clean`.
    """

    data: Any
    text: Callable[[], str]
    exit_code: ExitCode = ExitCode.OK
    ear: Any = None


def _remember(name: str) -> Callable[[typer.Context, Any], Any]:
    def callback(context: typer.Context, value: Any) -> Any:
        context.meta[name] = value
        return value

    return callback


def _common_options() -> list[inspect.Parameter]:
    option = functools.partial(typer.Option, is_eager=True, expose_value=False)
    annotations = {
        "format": Annotated[
            Format, option(callback=_remember(_FORMAT), help="Form of the output.")
        ],
        "quiet": Annotated[
            bool,
            option(
                "--quiet",
                callback=_remember(_QUIET),
                help="No words and no progress; the exit code tells.",
            ),
        ],
    }
    defaults = {"format": Format.TEXT, "quiet": False}
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=defaults[name],
            annotation=kind,
        )
        for name, kind in annotations.items()
    ]


def command(
    app: typer.Typer, name: str | None = None
) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
    """Make a function a command of `app`, with the options that all commands have."""

    def register(function: Callable[..., Answer]) -> Callable[..., Answer]:
        @functools.wraps(function)
        def run(**arguments: Any) -> Answer:
            for option in common:
                arguments.pop(option.name, None)
            return function(**arguments)

        common = _common_options()
        signature = inspect.signature(function)
        run.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*signature.parameters.values(), *common]
        )
        app.command(name)(run)
        return function

    return register


def new_app(summary: str) -> typer.Typer:
    """A noun, for verbs to be added to by `command`."""
    # Plain help: rich alone takes longer to load than a verification.
    app = typer.Typer(
        help=summary, no_args_is_help=True, rich_markup_mode=None, add_completion=False
    )
    # With a callback, typer keeps a noun with a single verb a group.
    app.callback()(lambda: None)
    return app


def is_quiet(context: typer.Context) -> bool:
    """Whether the command may say nothing beside its answer."""
    return bool(context.meta.get(_QUIET, False))


def say(context: typer.Context, words: str) -> None:
    """A note for people, on stderr."""
    if not is_quiet(context):
        typer.echo(words, err=True, color=_color())


def finish(context: typer.Context, answer: Answer) -> ExitCode:
    """Write the answer in the form that was asked for."""
    form = context.meta.get(_FORMAT)
    if form is Format.EAR and answer.ear is None:
        raise typer.BadParameter("--format ear is for the commands that verify tokens")
    if form in {Format.JSON, Format.EAR}:
        data = answer.data if form is Format.JSON else answer.ear
        typer.echo(json.dumps(data, indent=2))
    elif not is_quiet(context):
        typer.echo(answer.text(), color=_color())
    return answer.exit_code


def fail(context: typer.Context, error: BaseException) -> ExitCode:
    """Say what went wrong, and what to do, without showing the program's insides."""
    code = exit_code(error)
    if isinstance(error, AttestError):
        _say_error(str(error), error.hint)
        if context.meta.get(_FORMAT) in {Format.JSON, Format.EAR}:
            typer.echo(json.dumps({"error": _error_json(error)}, indent=2))
    elif isinstance(error, BrokenPipeError):
        # Else the interpreter complains again when it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    elif code is ExitCode.INTERNAL:
        # The class alone: the words of a foreign error may quote what was read.
        _say_error(
            f"internal: {type(error).__name__}",
            "set ATTEST_DEBUG=1 to see where, and report it",
        )
        if os.environ.get("ATTEST_DEBUG") == "1":
            traceback.print_exception(error)
    return code


def _say_error(message: str, hint: str) -> None:
    typer.echo(f"error: {clean(message)}", err=True)
    if hint:
        typer.echo(f" hint: {clean(hint)}", err=True)


def _error_json(error: AttestError) -> dict[str, Any]:
    value: dict[str, Any] = {
        "code": error.code,
        "message": str(error),
        "hint": error.hint,
    }
    if isinstance(error, ManifestMismatchError):
        for name in ("changed", "missing", "extra"):
            value[name] = list(getattr(error, name))
    return value


def _color() -> bool | None:
    # None lets typer decide: colours on a terminal, none in a pipe (no-color.org).
    return False if os.environ.get("NO_COLOR") else None
