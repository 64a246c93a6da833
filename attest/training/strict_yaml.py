"""The subset of YAML that every reader reads as the same object.

YAML 1.1 and 1.2 readers disagree on `no`, `1_000`, `012`, `1e3` and dates, and an
alias hides what a reader believes to see. All of these are refused, as are tags, nulls,
floats, keys that stand twice, and characters that make people read another text than
machines do: controls, and marks that turn the direction of writing (CVE-2021-42574).
"""

import re
from collections.abc import Iterator
from typing import Any, NoReturn

import yaml

from attest.errors import FormatError

__all__ = ["read_yaml"]

_MAX_DEPTH = 8
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,14})\Z")

# Words that PyYAML (1.1) takes for text and another reader does not: 1.2 floats and
# octals, and the one-letter booleans of the 1.1 specification.
_AMBIGUOUS = re.compile(
    r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|0o[0-7]+|[yYnN])\Z"
)

# Controls but tab and line feed, turns of direction, byte order marks, halves of pairs.
_DECEPTIVE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff"
    r"\ufffe\uffff\ud800-\udfff]"
)


def read_yaml(data: bytes, *, max_bytes: int) -> Any:
    """The value of exactly one YAML document of maps, lists, text, integers, booleans.

    Raises:
        FormatError: too large, not UTF-8, not YAML, more than one document, nested
            deeper than 8 levels, or anything outside the subset; names the line.
    """
    if len(data) > max_bytes:
        raise FormatError(f"YAML: {len(data)} bytes, at most {max_bytes} are read")
    text = _decoded(data)
    try:
        _check_events(yaml.parse(text, Loader=yaml.SafeLoader))
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or getattr(error, "context", None)
        _fail(getattr(error, "problem_mark", None), str(problem or "not YAML"))
    if node is None:
        raise FormatError("YAML: the document is empty")
    return _value(node)


def _decoded(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise FormatError("YAML: not UTF-8") from None
    # In comments too: for YAML 1.1, and not for 1.2, U+2028 ends a comment.
    hidden = _DECEPTIVE.search(text)
    if hidden:
        line = text.count("\n", 0, hidden.start()) + 1
        raise FormatError(f"YAML: line {line}: {_character(hidden)}")
    return text


def _character(found: re.Match[str]) -> str:
    return f"character U+{ord(found.group()):04X} is not allowed"


def _fail(mark: Any, problem: str) -> NoReturn:
    where = f"line {mark.line + 1}: " if mark else ""
    raise FormatError(f"YAML: {where}{problem}")


def _check_events(events: Iterator[Any]) -> None:
    # Before composing, which recurses and resolves aliases silently.
    depth = 0
    for event in events:
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            _fail(mark, "anchors and aliases are not allowed; write it out")
        if getattr(event, "tag", None):
            _fail(mark, "tags are not allowed")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                _fail(mark, f"nested deeper than {_MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _value(node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _mapping(node)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item) for item in node.value]
    return _scalar(node)


def _mapping(node: yaml.MappingNode) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = _scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
        if not isinstance(key, str):
            _fail(key_node.start_mark, "a key must be a word; quote it")
        if key in result:
            _fail(key_node.start_mark, f"key {key!r} stands twice")
        result[key] = _value(value_node)
    return result


def _scalar(node: Any) -> str | int | bool:
    text: str = node.value
    hidden = _DECEPTIVE.search(text)
    if hidden:
        _fail(node.start_mark, _character(hidden))
    kind = node.tag.rpartition(":")[2]
    if node.style is not None:
        return text
    if kind == "str" and not _AMBIGUOUS.match(text):
        return text
    if kind == "int" and _DECIMAL.match(text):
        return int(text)
    if kind == "bool" and text in ("true", "false"):
        return text == "true"
    _fail(
        node.start_mark,
        f"YAML readers disagree on {text!r}; quote it; fractions go in thousandths",
    )
