"""`attest verify`: answers, bundles and refusals, offline."""

from dataclasses import replace
from typing import Annotated

import typer

from attest.bundle import MAX_BUNDLE, Bundle, Endorsements
from attest.canonical import read_object
from attest.cli._read import (
    AuthorityOption,
    PolicyOption,
    now,
    read_input,
    read_policy,
)
from attest.cli._run import Answer, command, new_app
from attest.cli._verdict import verdict_answer
from attest.delivery import split_stream
from attest.envelope import MAX_ENVELOPE
from attest.errors import FormatError
from attest.policy import Policy
from attest.refusal import MAX_RECORD, verify_refusal
from attest.verify import verify

__all__ = ["app"]

app = new_app("Verify answers, bundles and refusals.")

MAX_BODY = 64 * 1024 * 1024

_ANSWER_LIMITS = (
    "that the answer is true, safe or useful, or obeys the constitution",
    "that the training's own account of itself is true",
)
_REFUSAL_LIMITS = (
    "that the reason is right: it is the gateway's word",
    "that nobody started another gateway afterwards",
)

NonceOption = Annotated[
    str, typer.Option(help="What you sent as Attestation-Nonce.", show_default=False)
]
AudienceOption = Annotated[
    str, typer.Option(help="What `aud` must be.", show_default=False)
]


@command(app)
def response(  # noqa: PLR0913  # one parameter per option
    *,
    token: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="The attestation, or -. Default: the one in the stream's comment.",
        ),
    ] = "",
    endorsements: Annotated[
        str,
        typer.Option(metavar="FILE", help="What /.well-known/attestation gave."),
    ],
    request: Annotated[
        str, typer.Option(metavar="FILE", help="The exact body that you sent.")
    ],
    response: Annotated[
        str, typer.Option(metavar="FILE", help="The exact body that you got.")
    ],
    authority: AuthorityOption = None,
    policy: PolicyOption = "",
    nonce: NonceOption = "",
    audience: AudienceOption = "",
) -> Answer:
    """Verify one answer from the files that a client kept."""
    demands = read_policy(authority, policy)
    body = read_input(response, max_bytes=MAX_BODY)
    limit = 2 * MAX_ENVELOPE
    given = read_object(read_input(endorsements, max_bytes=limit), max_bytes=limit)
    evidence = replace(
        Bundle.of(_token(token, body), Endorsements.from_json(given)),
        request=read_input(request, max_bytes=MAX_BODY),
        response=body,
    )
    return _judged(evidence, demands, nonce, audience)


@command(app)
def bundle(  # noqa: PLR0913  # one parameter per option
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A bundle, or -.", show_default=False)
    ],
    *,
    authority: AuthorityOption = None,
    policy: PolicyOption = "",
    request: Annotated[
        str, typer.Option(metavar="FILE", help="The exact body that was sent.")
    ] = "",
    response: Annotated[
        str, typer.Option(metavar="FILE", help="The exact body that was received.")
    ] = "",
    status: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="A current status list; repeatable."),
    ] = None,
    nonce: NonceOption = "",
    audience: AudienceOption = "",
) -> Answer:
    """Verify a bundle. Bodies given here take the place of those in the bundle.

    Where their bytes are not the attested ones, it says what became of them: the
    response may also be the text of the answer alone.
    """
    demands = read_policy(authority, policy)
    evidence = Bundle.loads(read_input(file, max_bytes=MAX_BUNDLE))
    if request:
        body = read_input(request, max_bytes=MAX_BODY)
        evidence = replace(evidence, request=body)
    if response:
        body = read_input(response, max_bytes=MAX_BODY)
        evidence = replace(evidence, response=body)
    lists = tuple(
        read_input(path).decode("ascii", "replace").strip() for path in status or ()
    )
    evidence = replace(evidence, status_lists=(*lists, *evidence.status_lists))
    return _judged(evidence, demands, nonce, audience)


@command(app)
def refusal(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="A refusal record, or -.", show_default=False
        ),
    ],
    *,
    authority: AuthorityOption = None,
    policy: PolicyOption = "",
) -> Answer:
    """Verify that a certified gateway refused to start, and show its reason."""
    demands = read_policy(authority, policy)
    record, at = read_input(file, max_bytes=MAX_RECORD), now()
    verdict = verify_refusal(record, demands, at=at)
    return verdict_answer(verdict, _REFUSAL_LIMITS, policy=demands, at=at)


def _judged(evidence: Bundle, demands: Policy, nonce: str, audience: str) -> Answer:
    at = now()
    verdict = verify(
        evidence, demands, at=at, nonce=nonce or None, audience=audience or None
    )
    return verdict_answer(verdict, _ANSWER_LIMITS, policy=demands, at=at)


def _token(path: str, body: bytes) -> str:
    if path:
        data = read_input(path).strip()
    else:
        found = split_stream(body)[1]
        if found is None:
            raise typer.BadParameter(
                "give --token: the response is no stream with an attestation in it"
            )
        return found
    if not data.isascii():
        raise FormatError("token: holds a character that no token has")
    return data.decode("ascii")
