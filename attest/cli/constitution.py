"""`attest constitution`: check a constitution, compile it for a model, compare two."""

from pathlib import Path
from typing import Annotated, Any

import typer

from attest.cli._constitution import (
    check_text,
    diff_text,
    principle_json,
    schedule_text,
)
from attest.cli._run import Answer, command, new_app
from attest.cli._sign import refuse_existing, write_new
from attest.cli.exits import ExitCode
from attest.training.constitution import load_constitution
from attest.training.revision import revise
from attest.training.selection import survey

__all__ = ["app"]

app = new_app("Check a constitution, compile it for a model, compare two versions.")

_File = Annotated[
    Path, typer.Argument(metavar="FILE", help="A constitution.", show_default=False)
]


@command(app)
def check(
    file: _File,
    *,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Count the rows of every principle in DIR, too."
        ),
    ] = None,
) -> Answer:
    """Check that a constitution can be trained by, and say what it asks.

    With --data it also finds principles without rows, rows of unknown principles, rows
    that belong to two, and held-out files that are missing.
    """
    constitution = load_constitution(file)
    counted = survey(constitution, data) if data else None
    answer: dict[str, Any] = {
        "id": constitution.id,
        "version": constitution.version,
        "digest": constitution.digest,
        "principles": [principle_json(p, counted) for p in constitution.principles],
    }
    if counted is not None:
        answer["unselected"] = dict(counted.unselected)
    return Answer(answer, lambda: check_text(constitution, counted))


@command(app)
def compile(  # noqa: A001  # the verb that people type
    file: _File,
    *,
    model: Annotated[
        Path,
        typer.Option(
            metavar="DIR", help="The model directory; only its config.json is read."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the schedule to a new file."),
    ] = None,
) -> Answer:
    """Say which tensors of a model each principle may change.

    Needs torch and transformers, and neither weights nor the network. The digest is
    that of the written file and of a training run on this model without adapters.
    """
    constitution = load_constitution(file)
    if output:
        refuse_existing(output)
    # Imported here: torch takes seconds, and the other commands need none.
    from attest.training.layout import read_layout  # noqa: PLC0415
    from attest.training.routing import compile_schedule  # noqa: PLC0415
    from attest.training.skeleton import build_skeleton  # noqa: PLC0415

    schedule = compile_schedule(constitution, read_layout(build_skeleton(model)))
    if output:
        write_new(output, schedule.dumps())
    return Answer(
        {
            "digest": schedule.digest,
            "path": str(output) if output else None,
            "schedule": schedule.to_json(),
        },
        lambda: schedule_text(constitution, schedule, output),
    )


@command(app)
def diff(
    old: Annotated[
        Path,
        typer.Argument(
            metavar="OLD", help="The earlier constitution.", show_default=False
        ),
    ],
    new: Annotated[
        Path,
        typer.Argument(
            metavar="NEW", help="The later constitution.", show_default=False
        ),
    ],
) -> Answer:
    """Say what changed between two versions, and whether the version says so.

    The text of a safety-critical principle, or a principle taken away, calls for a
    major version; bands, anchors, data, evaluations and requirements for a minor one; a
    title for a patch. A version that counts up less is a definite no.
    """
    before, after = load_constitution(old), load_constitution(new)
    found = revise(before, after)
    return Answer(
        {
            "id": after.id,
            "old": {"version": before.version, "digest": before.digest},
            "new": {"version": after.version, "digest": after.digest},
            "changes": [
                {
                    "principle": change.principle or None,
                    "change": change.words,
                    "part": str(change.part),
                }
                for change in found.changes
            ],
            "needed": str(found.needed),
            "least": found.least,
            "enough": found.enough,
        },
        lambda: diff_text(before, after, found),
        ExitCode.OK if found.enough else ExitCode.FALSE,
    )
