"""Write the table of values in README.md: `python helm/readme.py`. A test checks it.

The comments of values.yaml are those that Bitnami's readme-generator reads too.
"""  # noqa: INP001

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
START, END = "<!-- values -->", "<!-- end of values -->"

_SECTION = re.compile(r"\s*## @section (.+)")
_PARAM = re.compile(r"\s*## @param (\S+) (?:\[\w+\] )?(.+)")


def lookup(values: Any, name: str) -> Any:
    """The default of a value by its dotted name; KeyError where there is none."""
    for part in name.split("."):
        values = values[part]
    return values


def leaves(values: Any, described: set[str], prefix: str = "") -> Iterator[str]:
    """Names of all values, no deeper than what one comment describes."""
    for key, value in values.items():
        name = prefix + key
        if isinstance(value, dict) and name not in described:
            yield from leaves(value, described, name + ".")
        else:
            yield name


def parameters() -> list[tuple[str, list[tuple[str, str]]]]:
    """Sections in order, each with its values and what is said of them."""
    sections: list[tuple[str, list[tuple[str, str]]]] = []
    for line in (HERE / "values.yaml").read_text("utf-8").splitlines():
        if match := _SECTION.fullmatch(line):
            sections.append((match[1], []))
        elif match := _PARAM.fullmatch(line):
            sections[-1][1].append((match[1], match[2]))
    return sections


def table() -> str:
    """The tables of all sections."""
    values = yaml.safe_load((HERE / "values.yaml").read_text("utf-8"))
    parts = []
    for title, rows in parameters():
        lines = [f"### {title}", "", "| value | default | what it does, and risks |"]
        lines.append("| --- | --- | --- |")
        for name, words in rows:
            default = json.dumps(lookup(values, name))
            shown = "" if default in {'""', "{}", "[]"} else f"`{default}`"
            lines.append(f"| `{name}` | {shown} | {words} |".replace("|  |", "| |"))
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def readme() -> str:
    """README.md with the tables as they should be."""
    text = (HERE / "README.md").read_text("utf-8")
    head, _, rest = text.partition(START)
    tail = rest.partition(END)[2]
    return f"{head}{START}\n\n{table()}\n\n{END}{tail}"


if __name__ == "__main__":
    (HERE / "README.md").write_text(readme(), "utf-8")
