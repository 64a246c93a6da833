"""A verdict for people: a line per step, then what is proven and what is not."""

from collections.abc import Mapping, Sequence

import typer

from attest.cli._run import Answer
from attest.cli._text import clean, status_line
from attest.cli.exits import ExitCode
from attest.ear import attestation_result
from attest.errors import PolicyError
from attest.policy import Policy
from attest.restore import UNDONE
from attest.steps import Status, Step
from attest.verdict import Verdict

__all__ = ["verdict_answer"]

_WORDS = {Status.FAILED: "FAILED"}
_EXITS: Mapping[Status, ExitCode] = {
    Status.FAILED: ExitCode.FALSE,
    Status.UNKNOWN: ExitCode.UNKNOWN,
    Status.CONTENT_ONLY: ExitCode.CONTENT_ONLY,
}
_LOST = {"content.truncated", "content.not_disclosed"}


def verdict_answer(
    verdict: Verdict, not_proven: Sequence[str], *, policy: Policy, at: int
) -> Answer:
    """The answer of a command that verified something.

    Args:
        verdict: what the verifier found.
        not_proven: what no verdict of this kind proves, a clause each.
        policy: by which it was judged.
        at: as of when.
    """
    problem = verdict.problem
    return Answer(
        verdict.to_json(),
        lambda: _text(verdict, not_proven),
        ExitCode.OK if problem is None else _EXITS[problem.status],
        ear=attestation_result(verdict, policy, at=at),
    )


def _text(verdict: Verdict, not_proven: Sequence[str]) -> str:
    lines = [
        status_line(
            _WORDS.get(step.status, str(step.status)),
            f"{step.number:>2} {step.name}",
            step.detail,
        )
        for step in verdict.steps
    ]
    problem = verdict.problem
    if problem is None:
        lines.append(_bold(f"PROVEN at tier {verdict.tier}", typer.colors.GREEN))
    else:
        heading, color, words = _SAID[problem.status]
        lines.append(_bold(heading, color) + _where(problem))
        lines.append(f"  {_because(problem) or words}")
    if problem is None or problem.status is Status.CONTENT_ONLY:
        lines += _reach(verdict, not_proven)
    return "\n".join(lines)


_SAID: Mapping[Status, tuple[str, str, str]] = {
    Status.FAILED: (
        "FALSE",
        typer.colors.RED,
        (
            "Do not rely on it: something was altered, forged or mixed up. Later steps "
            "were not looked at."
        ),
    ),
    Status.UNKNOWN: (
        "CANNOT TELL",
        typer.colors.YELLOW,
        (
            "Nothing was found to be wrong, but evidence is missing or too new for "
            "this verifier. Later steps were not looked at."
        ),
    ),
    Status.CONTENT_ONLY: (
        "CONTENT PROVEN, BYTES NOT",
        typer.colors.YELLOW,
        (
            "What the answer says was attested. The copy at hand is spelt otherwise, "
            "and what the token does not state of it is not proven."
        ),
    ),
}


def _because(problem: Step) -> str:
    """Words for a no that is no forgery; "" where the usual ones fit."""
    if problem.code == PolicyError.code:
        return "The signatures hold, but it is not what your policy demands."
    codes = {item.code for item in problem.findings}
    if codes and codes <= _LOST:
        return (
            "The copy is not the attested answer. Whether what it holds was altered "
            "cannot be told."
        )
    undone = codes <= UNDONE
    if problem.status is Status.CONTENT_ONLY and undone:
        return (
            "The copy at hand was respelt; undone, it is the attested answer byte "
            "for byte."
        )
    return ""


def _reach(verdict: Verdict, not_proven: Sequence[str]) -> list[str]:
    """What the tier means, and what is not proven."""
    gaps = [
        f"{step.name}: {clean(step.detail)}"
        for step in verdict.steps
        if step.status is Status.NOT_CHECKED
    ]
    shown = ", ".join(map(clean, verdict.disclosed)) or "nothing"
    unproven = [f"  not proven: {gap}" for gap in [*gaps, *not_proven]]
    return [
        f"  {verdict.tier} means: {verdict.tier.meaning}",
        f"  disclosed: {shown}",
        *unproven,
    ]


def _bold(words: str, color: str) -> str:
    return typer.style(words, fg=color, bold=True)


def _where(step: Step) -> str:
    codes = ", ".join(item.code for item in step.findings)
    return f", because of step {step.name} ({codes})"
