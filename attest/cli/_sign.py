"""What signing a manifest reads and writes beside the model itself."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from attest.canonical import read_object
from attest.cli._read import read_input
from attest.cli._run import say
from attest.cli._text import clean
from attest.errors import ConfigurationError, FormatError
from attest.keys import Signer
from attest.signers import load_signer
from attest.statement import serving_dtype
from attest.weights import TensorDigest

__all__ = [
    "TRAINING_FILE",
    "read_prompts",
    "read_signers",
    "read_training",
    "refuse_existing",
    "serving_dtypes",
    "write_new",
]

_MAX_TRAINING = 4 * 1024 * 1024
TRAINING_FILE = "training.json"


def read_signers(keys: Sequence[str]) -> list[Signer]:
    """The signers that key files, or URIs such as `file:authority.key.pem`, name."""
    return [load_signer(key if ":" in key else f"file:{key}") for key in keys]


def read_training(source: Path | None, model: tuple[str, str]) -> dict[str, Any]:
    """The training run's account of itself, or the model's name and version alone."""
    name, version = model
    if source is None:
        if not (name and version):
            raise typer.BadParameter(
                "give --run or --statement, or else both --name and --version"
            )
        return {"model": {"name": name, "version": version}}
    if name or version:
        raise typer.BadParameter("the run says --name and --version itself")
    data = read_input(str(source), max_bytes=_MAX_TRAINING)
    try:
        return read_object(data, max_bytes=_MAX_TRAINING)
    except FormatError as error:
        raise ConfigurationError(f"{source}: {error}") from error


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
            hint="old answers refer to the old manifest; move it away, or use --output",
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
