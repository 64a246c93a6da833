"""The `attest` command. Each noun is loaded when the command line names it."""

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Annotated, Any

import typer
import typer.core

from attest._version import __version__
from attest.cli._run import Answer, fail, finish

__all__ = ["NOUNS", "app", "main"]

NOUNS: Mapping[str, tuple[str, str]] = {
    "bundle": (
        "attest.cli.bundle",
        "Fetch, verify and redact the evidence about one answer.",
    ),
    "constitution": (
        "attest.cli.constitution",
        "Check a constitution and compile it for a model.",
    ),
    "explain": ("attest.cli.explain", "Say what evidence claims, without verifying."),
    "keys": ("attest.cli.keys", "Make and show signing keys."),
    "ledger": (
        "attest.cli.ledger",
        "Verify training ledgers, show them, prove single records.",
    ),
    "log": ("attest.cli.log", "Check transparency logs, follow them, cosign them."),
    "manifest": ("attest.cli.manifest", "Sign, verify and show training manifests."),
    "profile": ("attest.cli.profile", "Show where training was absorbed."),
    "resistance": (
        "attest.cli.resistance",
        "Measure after how much fine-tuning a principle is lost.",
    ),
    "status": ("attest.cli.status", "Make and show lists of what is recalled."),
    "trace": ("attest.cli.trace", "Trace an answer to principles and training steps."),
    "verify": ("attest.cli.verify", "Verify answers, bundles and refusals."),
    "weights": ("attest.cli.weights", "Digest the weights of a model."),
}

# typer names no common base of its usage errors; this is it in every version.
_USAGE_ERROR = typer.BadParameter.__mro__[1]


class _Nouns(typer.core.TyperGroup):
    """A group that imports a sub-command when it is used.

    A verifier then loads no tables, and nobody waits for torch to see `--help`.
    """

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return [n for n, (path, _) in NOUNS.items() if importlib.util.find_spec(path)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.list_commands(ctx):
            return None
        return typer.main.get_command(importlib.import_module(NOUNS[cmd_name][0]).app)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(n, NOUNS[n][1]) for n in self.list_commands(ctx)])

    def invoke(self, ctx: Any) -> Any:
        try:
            answer = super().invoke(ctx)
            code = finish(ctx, answer) if isinstance(answer, Answer) else None
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, typer.Exit | typer.Abort | _USAGE_ERROR):
                raise
            code = fail(ctx, error)
        if code:
            raise typer.Exit(code)
        return None


app = typer.Typer(cls=_Nouns, no_args_is_help=True, rich_markup_mode=None)


def _version(value: bool) -> None:  # noqa: FBT001  # typer's callbacks are positional
    if value:
        from attest.claims import EAT_PROFILE  # noqa: PLC0415

        typer.echo(f"attest-gateway {__version__} ({EAT_PROFILE})")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_version,
            is_eager=True,
            help="Show the version, and the profile of the tokens that it reads.",
        ),
    ] = False,
) -> None:
    """Proof of which governed model produced an answer."""


def main() -> None:
    """Run the command line of this process."""
    app(prog_name="attest")


if __name__ == "__main__":
    main()
