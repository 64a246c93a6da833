"""The options of the commands that sign manifests."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from attest.cli._account import TRAINING_FILE
from attest.cli._run import Answer
from attest.hashing import MANIFEST_NAME
from attest.statement import MAX_VALID_DAYS

__all__ = ["How", "Name", "Run", "Statement", "Version", "takes_how"]

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
DmVerity = Annotated[
    str,
    typer.Option(
        metavar="ROOTHASH",
        help="Root hash (`veritysetup format`) of the volume that holds exactly these "
        "files. It is signed as it is given: nothing here reads the volume.",
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
Quantizations = Annotated[
    list[str] | None,
    typer.Option(
        "--quantization",
        help="Quantisation that the engine may load, by its name; repeatable.",
    ),
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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """By whom, for how long and for what use a manifest is signed."""

    key: Keys
    sign_shortfall: Shortfalls = None
    delegate: Delegates = None
    valid_days: ValidDays = 365
    free_sharding: FreeSharding = False
    fs_verity: FsVerity = False
    dm_verity: DmVerity = ""
    dtype: Dtypes = None
    quantization: Quantizations = None
    engine: Engines = None
    system_prompt: SystemPrompts = None
    log: Logs = None
    witness: Witnesses = None
    status_uri: StatusUri = ""
    status_index: StatusIndex = None
    supersedes: Supersedes = ""
    output: Output = None


def takes_how(function: Callable[..., Answer]) -> Callable[..., Answer]:
    """Give a command the fields of `How` as options; it gets them as `how`."""
    fields = dataclasses.fields(How)

    @functools.wraps(function)
    def run(**arguments: Any) -> Answer:
        how = How(**{field.name: arguments.pop(field.name) for field in fields})
        return function(**arguments, how=how)

    own = [
        p for p in inspect.signature(function).parameters.values() if p.name != "how"
    ]
    added = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty
            if field.default is dataclasses.MISSING
            else field.default,
            annotation=field.type,
        )
        for field in fields
    ]
    run.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    return run
