"""Write reference.md from the code: `python docs/generate.py`. A test checks it."""  # noqa: INP001

import ast
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from string import Template
from typing import Any

import typer
import typer.main

import attest.verify
from attest.claims import SALTED, TOKENS, Claim, Measured, Outcome, SystemPrompt
from attest.cli._explain import MANIFEST_MEMBERS, TITLES
from attest.cli.exits import ExitCode
from attest.cli.main import NOUNS, app
from attest.keys import PrivateKey
from attest.policy import Policy, Tier
from attest.statement import TRAINING_KEYS

HERE = Path(__file__).parent
ROOT = HERE.parent

COMMON = {"format", "help", "quiet"}
WORDS = {"measured": Measured, "outcome": Outcome, "system_prompt": SystemPrompt}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def commands() -> Iterator[tuple[str, Any]]:
    """Every command of `attest`, by the words that call it."""
    root: Any = typer.main.get_command(app)
    context = typer.Context(root, info_name="attest")
    for noun in root.list_commands(context):
        command = root.get_command(context, noun)
        verbs = getattr(command, "commands", None)
        if verbs is None:
            yield f"attest {noun}", command
        else:
            yield from ((f"attest {noun} {verb}", c) for verb, c in verbs.items())


def command_sections() -> str:
    """One section per command."""
    parts = []
    for words, command in commands():
        rows = [option(item) for item in command.params if item.name not in COMMON]
        paragraphs = (command.help or "").split("\n\n")
        text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
        parts.append(f"### {words}\n\n{text}\n\n{table(['', '', ''], rows)}")
    return "\n\n".join(parts)


def option(parameter: Any) -> list[str]:
    """The row of one option or argument."""
    name = parameter.metavar or ""
    if parameter.param_type_name == "option":
        name = f"{', '.join(parameter.opts)} {name}".strip()
    note = "required" if parameter.required else ""
    if not parameter.required and parameter.default not in (None, "", False):
        note = f"default {parameter.default}"
    return [f"`{name}`", note, parameter.help or ""]


def claims() -> str:
    """The tables of every kind of token, of the disclosures and of fixed words."""
    parts = [f"### `{t}`\n\nA {TITLES[t]}.\n\n{schema(TOKENS[t])}" for t in TOKENS]
    parts.append(
        "### Disclosures\n\nSalted claims of a response attestation, shown to whoever "
        f"has the disclosure.\n\n{schema(SALTED)}"
    )
    rows = [[f"`{n}`", ", ".join(f"`{v}`" for v in kind)] for n, kind in WORDS.items()]
    parts.append("### Words\n\n" + table(["claim", "one of"], rows))
    return "\n\n".join(parts)


def schema(rows: Iterable[Claim]) -> str:
    """The table of one kind of token."""
    return table(
        ["claim", "", "means", "does not prove"],
        [
            [
                f"`{claim.name}`",
                "" if claim.required else "optional",
                claim.meaning,
                claim.not_proven,
            ]
            for claim in rows
        ],
    )


def policy() -> str:
    """The members of a policy file."""
    words = attributes(Policy)
    defaults = Policy(authorities=(PrivateKey.generate().public,)).to_json()
    rows = [
        [f"`{field.name}`", words[field.name], f"`{json.dumps(defaults[field.name])}`"]
        for field in fields(Policy)
    ]
    rows[0][2] = "required"
    return table(["member", "means", "default"], rows)


def attributes(kind: type) -> Mapping[str, str]:
    """What the docstring of a dataclass says about each attribute."""
    text = (kind.__doc__ or "").partition("Attributes:")[2]
    found = re.findall(r"^\s+(\w+): (.+(?:\n {12}.+)*)$", text, re.MULTILINE)
    return {name: " ".join(words.split()) for name, words in found}


def steps() -> str:
    """The verifier's steps, as its module says them."""
    text = attest.verify.__doc__ or ""
    rows = re.findall(r"^    (\d+) (\w+) +(.+)$", text, re.MULTILINE)
    return table(["step", "", "passes when"], rows)


def drawing(module: str) -> str:
    """The indented block of a module's docstring, without importing the module."""
    text = ast.get_docstring(ast.parse((ROOT / module).read_text("utf-8"))) or ""
    lines = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    return "```\n" + "\n".join(lines) + "\n```"


def reference() -> str:
    """The whole page."""
    nouns = sorted({words.split()[1] for words, _ in commands()})
    manifest = [[f"`{name}`", *words] for name, words in MANIFEST_MEMBERS.items()]
    return Template((HERE / "reference.md.in").read_text("utf-8")).substitute(
        exit_codes=table(
            ["code", "means"], [[str(int(c)), c.meaning] for c in ExitCode]
        ),
        nouns=table(["noun", ""], [[f"`{noun}`", NOUNS[noun][1]] for noun in nouns]),
        commands=command_sections(),
        steps=steps(),
        tiers=table(["tier", "means"], [[str(tier), tier.meaning] for tier in Tier]),
        policy=policy(),
        claims=claims(),
        training_keys=", ".join(f"`{name}`" for name in sorted(TRAINING_KEYS)),
        manifest=table(["member", "means", "does not prove"], manifest),
        errors=drawing("attest/errors.py"),
        gateway_errors=drawing("gateway/errors.py"),
    )


if __name__ == "__main__":
    (HERE / "reference.md").write_text(reference(), "utf-8")
