"""`attest log`: check transparency logs, follow them, and cosign them."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from attest.audit.auditor import Auditor
from attest.audit.findings import Finding
from attest.audit.reading import audit
from attest.cli._read import (
    AuthorityOption,
    PolicyOption,
    read_input,
    read_policy,
    read_vkeys,
)
from attest.cli._run import Answer, command, new_app, say
from attest.cli._sign import read_signers
from attest.cli._source import open_source
from attest.cli._state import read_state, state_lock, write_state
from attest.cli._text import clean, status_line
from attest.cli._witness import Desk, WitnessServer
from attest.cli.exits import ExitCode
from attest.digests import parse_digest
from attest.errors import ConfigurationError, FormatError, VerificationError
from attest.keys import PublicKey
from attest.log.checkpoint import parse_checkpoint
from attest.log.note import KeyKind, NoteKey, NoteSigner
from attest.log.tiles import consistency_proof
from attest.log.witness import Witness, format_submission
from attest.policy import Policy
from attest.tokens import signing_digest

__all__ = ["app"]

app = new_app("Check transparency logs, follow them, and cosign them.")

_Place = Annotated[
    str,
    typer.Argument(
        metavar="URL|DIR",
        help="A gateway's address, or a copy of its log.",
        show_default=False,
    ),
]
_ApiKey = Annotated[
    str,
    typer.Option(metavar="FILE", help="API key that the log's records need."),
]
_Log = Annotated[
    list[str] | None,
    typer.Option(
        metavar="VKEY", help="Key of the log. Default: those of its manifests."
    ),
]


@command(app)
def key(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="An Ed25519 key, public or private.")
    ],
    *,
    name: Annotated[
        str,
        typer.Option(help="Name of the log or witness, such as example.com/log."),
    ],
    witness: Annotated[
        bool, typer.Option("--witness", help="The key of a witness, not of a log.")
    ] = False,
) -> Answer:
    """Show the verifier key (vkey) of a log or a witness.

    It is what `attest manifest sign --log` and `--witness` take.
    """
    data = read_input(file)
    try:
        if b"PRIVATE KEY-----" in data:
            public = read_signers([file])[0].public
        else:
            public = PublicKey.from_bytes(data)
        kind = KeyKind.WITNESS if witness else KeyKind.LOG
        vkey = str(NoteKey.of(name, kind, public))
    except FormatError as error:
        raise ConfigurationError(f"{file}: {error}", hint=error.hint) from error
    return Answer({"vkey": vkey}, lambda: clean(vkey))


@command(app)
def verify(  # noqa: PLR0913  # one parameter per option
    place: _Place,
    *,
    authority: AuthorityOption = None,
    policy: PolicyOption = "",
    log: _Log = None,
    token: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE", help="An attestation that must be in it; repeatable."
        ),
    ] = None,
    api_key_file: _ApiKey = "",
    save: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep a copy of all that was read."),
    ] = None,
) -> Answer:
    """Check a whole log: every record, every boot's sequence, the tree and its head."""
    demands = _policy(authority, policy, log)
    source = open_source(place, api_key_file=api_key_file, save=save)
    auditor = Auditor(demands)
    findings = audit(auditor, source, wanted=[_leaf(file) for file in token or ()])
    return _answer(auditor, findings)


@command(app)
def monitor(  # noqa: PLR0913  # one parameter per option
    context: typer.Context,
    url: _Place,
    *,
    state: Annotated[
        Path,
        typer.Option(metavar="FILE", help="What was seen before; made if missing."),
    ],
    authority: AuthorityOption = None,
    policy: PolicyOption = "",
    log: _Log = None,
    api_key_file: _ApiKey = "",
    every: Annotated[
        float | None,
        typer.Option(min=1, help="Look again after so many seconds, until a no."),
    ] = None,
) -> Answer:
    """Follow a log: is it what it was, and what has changed since the last look?

    A fork, a dropped or altered record is an alarm. Alarms stay in the state file, so
    that a later look says no as well.
    """
    demands = _policy(authority, policy, log)
    source = open_source(url, api_key_file=api_key_file)
    with state_lock(state):
        while True:
            auditor, findings = _look(demands, source, state)
            answer = _answer(auditor, findings)
            if every is None or answer.exit_code is not ExitCode.OK:
                return answer
            for finding in findings:
                say(context, _line(finding))
            time.sleep(every)


def _look(demands: Policy, source: Any, path: Path) -> tuple[Auditor, list[Finding]]:
    before = read_state(path)
    try:
        auditor = (
            Auditor(demands) if before is None else Auditor.from_json(demands, before)
        )
    except FormatError as error:
        raise ConfigurationError(f"state: {path}: {error}") from error
    seen = auditor.head
    findings = audit(auditor, source)
    after = auditor.to_json()
    if auditor.head is seen and before is not None:
        # The head was not accepted, or is the old one: nothing new was seen.
        after = {**before, "alarms": after["alarms"]}
    if seen is None and auditor.head is None:
        after = {**Auditor(demands).to_json(), "alarms": after["alarms"]}
    write_state(path, after)
    return auditor, findings


@command(app)
def witness(  # noqa: PLR0913  # one parameter per option
    context: typer.Context,
    url: Annotated[
        str,
        typer.Argument(metavar="[URL]", help="Cosign this log once.", show_default=""),
    ] = "",
    *,
    key: Annotated[
        str, typer.Option(metavar="FILE", help="Witness's private key (Ed25519).")
    ],
    name: Annotated[str, typer.Option(help="Witness's name, such as example.com/w.")],
    log: Annotated[
        list[str], typer.Option(metavar="VKEY", help="Key of a log; repeatable.")
    ],
    state: Annotated[
        Path, typer.Option(metavar="FILE", help="The heads that it cosigned last.")
    ],
    listen: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT", help="Serve add-checkpoint to logs (C2SP) instead."
        ),
    ] = "",
    new_state: Annotated[
        bool,
        typer.Option("--new-state", help="Begin: make the state file, once."),
    ] = False,
) -> Answer:
    """Cosign a log's head, if it extends the one that was cosigned before."""
    if bool(url) == bool(listen):
        raise typer.BadParameter("give either URL or --listen")
    signer = NoteSigner(name, KeyKind.WITNESS, read_signers([key])[0])
    logs = read_vkeys(log, KeyKind.LOG)
    with state_lock(state):
        try:
            vkey = str(signer.key)
        except FormatError as error:
            raise ConfigurationError(f"{key}: {error}", hint=error.hint) from error
        if new_state:
            _begin(state, vkey)
        desk = Desk(Witness(signer, logs), state)
        if listen:
            return _serve(context, listen, desk, vkey)
        line = _cosign(url, desk)
    return Answer({"cosignature": line}, lambda: clean(line))


def _begin(path: Path, vkey: str) -> None:
    if path.exists():
        raise ConfigurationError(f"state: {path} exists", hint="leave out --new-state")
    write_state(path, {"witness": vkey, "logs": {}})


def _serve(context: typer.Context, listen: str, desk: Desk, vkey: str) -> Answer:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal():
        raise typer.BadParameter("expected --listen HOST:PORT")
    try:
        server = WitnessServer((host, int(port)), desk)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(f"listen: {listen}: {error}") from error
    say(context, f"witness {clean(vkey)} listens on {host}:{server.server_port}")
    with server:
        server.serve_forever()
    return Answer({}, str)


def _cosign(url: str, desk: Desk) -> str:
    source = open_source(url)
    head, note = parse_checkpoint(source.get("checkpoint"))
    known = desk.seen.get(head.origin)
    old_size = 0 if known is None else min(known.size, head.size)
    proof = consistency_proof(
        old_size, head.size, lambda level, tile: source.get(f"tile/{level}/{tile.path}")
    )
    answer = desk.add_checkpoint(format_submission(old_size, proof, note))
    text = answer.body.decode().strip()
    if answer.status == 200:
        return text
    if answer.status == 409 and known is not None and head.size < known.size:
        text = f"{head.size} entries, where {known.size} were cosigned before"
    if answer.status == 404:
        raise ConfigurationError(
            f"{head.origin}: this log is not watched", hint="name its key: --log VKEY"
        )
    raise VerificationError(f"not cosigned: {text}")


def _policy(
    authority: Sequence[str] | None, policy: str, logs: Sequence[str] | None
) -> Policy:
    demands = read_policy(authority, policy)
    return replace(demands, logs=read_vkeys(logs, KeyKind.LOG)) if logs else demands


def _leaf(path: str) -> bytes:
    token = read_input(path).decode("ascii", "replace").strip()
    return parse_digest(signing_digest(token.partition("~")[0]))


def _answer(auditor: Auditor, findings: Sequence[Finding]) -> Answer:
    head = auditor.head
    data = {
        "verdict": "false" if auditor.alarms else "proven",
        "log": None if head is None else {"origin": head.origin, "size": head.size},
        "witnesses": {"cosigned": auditor.cosigned[0], "of": auditor.cosigned[1]},
        "boots": [
            {"boot": name, "records": chain.following, "systemPrompts": chain.prompts}
            for name, chain in auditor.chains.items()
        ],
        "findings": [finding.to_json() for finding in findings],
        "alarms": [alarm.to_json() for alarm in auditor.alarms],
    }
    code = ExitCode.FALSE if auditor.alarms else ExitCode.OK
    return Answer(data, lambda: _text(auditor, findings), code)


def _text(auditor: Auditor, findings: Sequence[Finding]) -> str:
    lines = [_line(finding) for finding in findings]
    lines += [_line(old) for old in auditor.alarms if old not in findings]
    head, (cosigned, witnesses) = auditor.head, auditor.cosigned
    if head is not None:
        lines.append(f"log {clean(head.origin)}, {head.size} entries")
        lines.append(f"{cosigned} of {witnesses} witnesses cosigned its head")
    for name, chain in auditor.chains.items():
        prompts = ", ".join(f"{count} {kind}" for kind, count in chain.prompts.items())
        lines.append(f"boot {name}: {chain.following} records ({prompts or 'none'})")
    if auditor.alarms:
        lines.append("FALSE: the log or its operator does not keep to what it showed")
    else:
        lines.append("PROVEN: nothing that was logged is missing, changed or forked")
        lines.append("  not proven: that every answer was logged; an answer's bundle")
        lines.append("  shows whether that answer was")
    return "\n".join(lines)


def _line(finding: Finding) -> str:
    word = "FAILED" if finding.kind.false else "changed"
    where = "" if finding.index is None else f"entry {finding.index}: "
    return status_line(word, str(finding.kind), where + finding.detail)
