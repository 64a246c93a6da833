"""The options of `attest manifest sign`."""

from pathlib import Path
from typing import Annotated

import typer

from attest.cli._sign import TRAINING_FILE
from attest.hashing import MANIFEST_NAME
from attest.statement import MAX_VALID_DAYS

__all__ = [
    "Delegates",
    "Dtypes",
    "Engines",
    "FreeSharding",
    "Keys",
    "Logs",
    "Name",
    "Output",
    "Run",
    "Shortfalls",
    "Statement",
    "StatusIndex",
    "StatusUri",
    "Supersedes",
    "SystemPrompts",
    "ValidDays",
    "Version",
    "Witnesses",
]

Keys = Annotated[
    list[str],
    typer.Option(metavar="FILE", help="Authority's private key; repeatable."),
]
Run = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help=f"Training run: its {TRAINING_FILE} is read and compared with its files.",
    ),
]
Shortfalls = Annotated[
    list[str] | None,
    typer.Option(
        "--sign-shortfall",
        metavar="PRINCIPLE",
        help="Sign that this principle misses its resistance requirement; repeatable.",
    ),
]
Statement = Annotated[
    Path | None, typer.Option(metavar="FILE", help=f"A {TRAINING_FILE}.")
]
Name = Annotated[str, typer.Option(help="Model name, without a run.")]
Version = Annotated[str, typer.Option(help="Model version, without a run.")]
Delegates = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE", help="Public key that may certify gateways; repeatable."
    ),
]
ValidDays = Annotated[
    int,
    typer.Option(
        min=1, max=MAX_VALID_DAYS, help="How long, for delegates too, from now on."
    ),
]
Logs = Annotated[
    list[str] | None,
    typer.Option(
        metavar="VKEY", help="Key of a log that gateways may use; repeatable."
    ),
]
Witnesses = Annotated[
    list[str] | None,
    typer.Option(metavar="VKEY", help="Key of a witness of these logs; repeatable."),
]
StatusUri = Annotated[
    str,
    typer.Option(metavar="URI", help="Status list by which it can be recalled."),
]
StatusIndex = Annotated[
    int | None, typer.Option(min=0, help="Its entry in that list, its own.")
]
Supersedes = Annotated[
    str, typer.Option(metavar="FILE", help="The manifest that this one replaces.")
]
FreeSharding = Annotated[
    bool,
    typer.Option(
        "--free-sharding", help="The tensors may lie in other safetensors files."
    ),
]
FsVerity = Annotated[
    bool,
    typer.Option(
        "--fs-verity",
        help="List fs-verity digests too: where the files' system has fs-verity, "
        "gateways then start without reading them.",
    ),
]
Dtypes = Annotated[
    list[str] | None,
    typer.Option(
        help="Number format to serve in; repeatable. Default: as most are stored."
    ),
]
Engines = Annotated[
    list[str] | None,
    typer.Option(help="Engine that may serve; repeatable. Default: vllm."),
]
SystemPrompts = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=FILE",
        help="A governed system prompt: the file's exact text, nothing trimmed.",
    ),
]
Output = Annotated[
    Path | None, typer.Option(metavar="FILE", help=f"Default: DIR/{MANIFEST_NAME}.")
]
