"""A verdict for people: a line per step, then what is proven and what is not."""

from collections.abc import Sequence

import typer

from attest.cli._run import Answer
from attest.cli._text import clean, status_line
from attest.cli.exits import ExitCode
from attest.errors import PolicyError
from attest.verify import Status, Verdict

__all__ = ["verdict_answer"]

_WORDS = {Status.FAILED: "FAILED"}


def verdict_answer(verdict: Verdict, not_proven: Sequence[str]) -> Answer:
    """The answer of a command that verified something.

    Args:
        verdict: what the verifier found.
        not_proven: what no verdict of this kind proves, a clause each.
    """
    code = ExitCode.UNKNOWN
    if verdict.proven:
        code = ExitCode.OK
    elif verdict.false:
        code = ExitCode.FALSE
    return Answer(verdict.to_json(), lambda: _text(verdict, not_proven), code)


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
        tier = verdict.tier
        lines.append(_bold(f"PROVEN at tier {tier}", typer.colors.GREEN))
        lines.append(f"  {tier} means: {tier.meaning}")
        gaps = [
            f"{step.name}: {clean(step.detail)}"
            for step in verdict.steps
            if step.status is Status.NOT_CHECKED
        ]
        lines += [f"  not proven: {gap}" for gap in [*gaps, *not_proven]]
    elif verdict.false:
        lines.append(_bold("FALSE", typer.colors.RED) + _where(problem.name))
        lines.append(
            "  The signatures hold, but it is not what your policy demands."
            if problem.code == PolicyError.code
            else "  Do not rely on it: something was altered, forged or mixed up. "
            "Later steps were not looked at."
        )
    else:
        lines.append(_bold("CANNOT TELL", typer.colors.YELLOW) + _where(problem.name))
        lines.append(
            "  Nothing was found to be wrong, but evidence is missing or too new for "
            "this verifier. Later steps were not looked at."
        )
    return "\n".join(lines)


def _bold(words: str, color: str) -> str:
    return typer.style(words, fg=color, bold=True)


def _where(step: str) -> str:
    return f", because of step {step}"
