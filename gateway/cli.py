"""The `attest-gateway` command."""

import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from attest._version import __version__
from attest.cli.exits import ExitCode, exit_code
from attest.errors import AttestError
from gateway.errors import (
    EngineError,
    EngineNotInstalledError,
    StartupRefusedError,
    WorkerError,
)

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)

# Beside those of `attest`: which errors of the gateway are a no, which leave it open.
_CODES: Mapping[type[AttestError], ExitCode] = {
    StartupRefusedError: ExitCode.FALSE,
    EngineNotInstalledError: ExitCode.CONFIGURATION,
    EngineError: ExitCode.UNKNOWN,
    WorkerError: ExitCode.UNKNOWN,
}


def _code(error: AttestError) -> ExitCode:
    for kind in type(error).__mro__:
        if kind in _CODES:
            return _CODES[kind]
    return exit_code(error)


def _run(action: Callable[[], int]) -> None:
    try:
        status = action()
    except AttestError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        if error.hint:
            print(f"  hint: {error.hint}", file=sys.stderr)  # noqa: T201
        status = _code(error)
    raise typer.Exit(status)


@app.callback()
def _root() -> None:
    """Serve governed weights and attest every answer."""


@app.command()
def version() -> None:
    """Show the version."""
    typer.echo(f"attest-gateway {__version__}")


@app.command()
def serve(  # noqa: PLR0913  # one parameter per flag is how typer reads
    *,
    model: Annotated[Path | None, typer.Option(help="Directory of the model.")] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(help="Training manifest; default: in the model directory."),
    ] = None,
    authority: Annotated[
        list[Path] | None,
        typer.Option(help="Public key of a training authority; repeatable."),
    ] = None,
    threshold: Annotated[
        int | None, typer.Option(help="How many authorities must have signed.")
    ] = None,
    signer: Annotated[
        str | None,
        typer.Option(help="Key that certifies session keys: file:issuer.key.pem"),
    ] = None,
    gateway_id: Annotated[
        str | None, typer.Option(help="Name of this gateway in every token.")
    ] = None,
    served_model_name: Annotated[
        str | None, typer.Option(help="Name that clients ask for.")
    ] = None,
    upstream: Annotated[
        str | None,
        typer.Option(help="Engine that somebody else starts: http://… or unix:/path"),
    ] = None,
    reference_file: Annotated[
        Path | None, typer.Option(help="Where its loader reads what it must find.")
    ] = None,
    load_report: Annotated[
        Path | None, typer.Option(help="File that its plug-in writes after loading.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that answer, each on a core.")
    ] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="Store, engine log and refusals.")
    ] = None,
    api_keys_file: Annotated[
        Path | None, typer.Option(help="SHA-256 digests of API keys, one a line.")
    ] = None,
    log_key: Annotated[
        Path | None, typer.Option(help="Private key that signs the log's heads.")
    ] = None,
    engine_python: Annotated[
        str | None, typer.Option(help="Interpreter that has vLLM.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Number format; default: the manifest's first.")
    ] = None,
    max_model_len: Annotated[
        int | None, typer.Option(help="Longest context, in tokens.")
    ] = None,
    engine_arg: Annotated[
        list[str] | None, typer.Option(help="A further vLLM flag; repeatable.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file with any of the settings.")
    ] = None,
) -> None:
    """Check the weights, start the engine, and attest its answers."""
    flags: dict[str, Any] = {
        "model": model,
        "manifest": manifest,
        "authority": authority,
        "threshold": threshold,
        "signer": signer,
        "gateway_id": gateway_id,
        "served_model_name": served_model_name,
        "upstream": upstream,
        "reference_file": reference_file,
        "load_report": load_report,
        "host": host,
        "port": port,
        "workers": workers,
        "state_dir": state_dir,
        "api_keys_file": api_keys_file,
        "log_key": log_key,
    }
    engine = {
        "python": engine_python,
        "dtype": dtype,
        "max_model_len": max_model_len,
        "extra_args": engine_arg,
    }
    flags["engine"] = {k: v for k, v in engine.items() if v is not None} or None

    def action() -> int:
        # Here and not above: `--help` should not wait for the web framework.
        from gateway.logs import configure_logs  # noqa: PLC0415
        from gateway.server import serve as run  # noqa: PLC0415
        from gateway.settings import load_settings  # noqa: PLC0415

        configure_logs()
        return run(load_settings(flags, config))

    _run(action)


plugin = typer.Typer(no_args_is_help=True, help="The part that lives in the engine.")
app.add_typer(plugin, name="plugin")


@plugin.callback()
def _plugin() -> None:
    """The part that lives in the engine."""


@plugin.command()
def install(
    directory: Annotated[
        Path, typer.Argument(help="Empty folder, for the engine's PYTHONPATH.")
    ],
    *,
    reference: Annotated[
        str, typer.Option(help="Where the engine sees the gateway's reference_file.")
    ] = "/run/attest/reference.json",
    report: Annotated[
        str, typer.Option(help="Where it writes the gateway's load_report; or nothing.")
    ] = "",
) -> None:
    """Write the plug-in into a folder beside a stock vLLM, and show how to use it."""

    def action() -> int:
        from gateway.engine.install import (  # noqa: PLC0415
            engine_settings,
            install_plugin,
        )

        install_plugin(directory)
        environment, flags = engine_settings(
            directory.absolute(), reference=reference, report=report
        )
        for name, value in environment.items():
            typer.echo(f"{name}={value}")
        typer.echo(shlex.join(flags))
        return 0

    _run(action)


store = typer.Typer(no_args_is_help=True, help="Where attestations are kept.")
app.add_typer(store, name="store")


@store.callback()
def _store() -> None:
    """Where attestations are kept."""


@store.command()
def copy(
    source: Annotated[
        Path, typer.Argument(help="attestations.sqlite of a gateway that is stopped.")
    ],
    *,
    postgres_dsn_file: Annotated[
        Path, typer.Option(help="File with the connection string of an empty database.")
    ],
) -> None:
    """Copy all attestations and the log into PostgreSQL."""

    def action() -> int:
        import asyncio  # noqa: PLC0415

        from gateway.store.copy import copy_store  # noqa: PLC0415
        from gateway.store.postgres import read_dsn  # noqa: PLC0415

        counts = asyncio.run(copy_store(source, read_dsn(postgres_dsn_file)))
        typer.echo(", ".join(f"{count} {table}" for table, count in counts.items()))
        return 0

    _run(action)


@app.command()
def demo(
    directory: Annotated[
        Path, typer.Option("--dir", help="Where to work; made anew each time.")
    ] = Path("demo-run"),
) -> None:
    """Train, sign, serve, ask, prove; then cheat, and see it found out."""

    def action() -> int:
        from rich.console import Console  # noqa: PLC0415

        from gateway.demo.flow import run_demo  # noqa: PLC0415

        return run_demo(directory, Console())

    _run(action)


def main() -> None:
    """Run the command line of this process."""
    app(prog_name="attest-gateway")


if __name__ == "__main__":
    main()
