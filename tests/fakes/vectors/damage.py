"""What can become of any answer, and what must be found then."""

import gzip
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fakes.vectors.signed import (
    PROVEN,
    WORLD,
    Expected,
    false,
    harmless,
    token,
)
from fakes.world import World, with_comment

from attest.bundle import Bundle
from attest.sse import EventSplitter
from attest.transcript import Dialect

__all__ = [
    "Damage",
    "Exchange",
    "compact",
    "events",
    "lost",
    "recorded",
    "respelt",
    "without",
]

_RECORDED = Path(__file__).parents[2] / "vectors" / "vllm-0.32"

Damage = tuple[bytes, Expected]


@dataclass(frozen=True)
class Exchange:
    """A request and its answer, and what can become of the answer.

    Attributes:
        swaps: real changes: a name, old bytes that stand in the answer, new ones, and
            the codes.
        text: of the answer, where it is all that was said.
        more: further damages, by name.
    """

    name: str
    dialect: Dialect
    request: dict[str, Any]
    response: bytes
    swaps: tuple[tuple[str, bytes, bytes, str], ...]
    text: str | None = None
    more: Mapping[str, Callable[[bytes], Damage]] = field(default_factory=dict)

    @property
    def streamed(self) -> bool:
        return not self.response.startswith(b"{")

    @property
    def request_body(self) -> bytes:
        return compact(self.request)

    def token(self, world: World = WORLD) -> str:
        return token(
            self.name, self.request_body, self.response, self.dialect, world=world
        )

    def bundle(self, world: World = WORLD) -> Bundle:
        return Bundle(
            token=self.token(world),
            key_certificates=(world.certificate,),
            boot_record=world.boot,
            manifest=world.envelope,
            request=self.request_body,
            response=self.response,
        )

    def damages(self) -> Iterator[tuple[str, bytes, Expected]]:
        """Every damaged answer: a name, the bytes, what must be found."""
        yield "none", self.response, PROVEN
        yield from self._swapped()
        spoilt = _STREAM_DAMAGES if self.streamed else _BODY_DAMAGES
        for name, spoil in {**spoilt, **self.more}.items():
            body, expected = spoil(self.response)
            if body != self.response:
                yield name, body, expected
        if self.text is not None:
            text = self.text.encode()
            yield "text alone", text, harmless("text_only")
            yield "text and a newline", text + b"\n", harmless("text_only")
            yield "another text", text + b"x", false("changed")

    def _swapped(self) -> Iterator[tuple[str, bytes, Expected]]:
        for name, old, new, words in self.swaps:
            assert old in self.response, (self.name, old)
            body = self.response.replace(old, new, 1)
            yield name, body, false(*words.split())
            if not self.streamed:
                pretty = json.dumps(json.loads(body), indent=2).encode()
                yield f"{name}, pretty-printed", pretty, false(*words.split())


def recorded(name: str) -> bytes:
    """A body that a real vLLM sent."""
    (path,) = _RECORDED.glob(f"{name}.response.*")
    return path.read_bytes()


def compact(value: Any, **options: Any) -> bytes:
    """JSON as vLLM writes it."""
    options = {"ensure_ascii": False, "separators": (",", ":"), **options}
    return json.dumps(value, **options).encode()


def events(stream: bytes) -> list[bytes]:
    """The events of a stream, each with the blank line that ends it."""
    splitter = EventSplitter()
    return [event.raw for event in splitter.feed(stream)]


def respelt(stream: bytes, **options: Any) -> bytes:
    """The stream with the JSON of each event written anew."""
    return re.sub(
        rb"(?m)^data: (\{.*)$",
        lambda match: b"data: " + compact(json.loads(match[1]), **options),
        stream,
    )


def _body(**options: Any) -> Callable[[bytes], bytes]:
    return lambda body: compact(json.loads(body), **options)


def _is_ascii(body: bytes) -> bool:
    return body.decode().isascii()


_SPACED = {"separators": (", ", ": ")}
_PLAIN: Mapping[str, Callable[[bytes], Damage]] = {
    "newline added": lambda b: (b + b"\n", harmless("newline")),
    "byte order mark": lambda b: (b"\xef\xbb\xbf" + b, harmless("bom")),
    "compressed": lambda b: (gzip.compress(b, mtime=0), harmless("compressed")),
    "truncated": lambda b: (b[: len(b) * 2 // 3], false("truncated")),
}
_BODY_DAMAGES: Mapping[str, Callable[[bytes], Damage]] = {
    **_PLAIN,
    "pretty-printed": lambda b: (
        _body(indent=2, separators=None)(b),
        harmless("whitespace"),
    ),
    "spaced": lambda b: (_body(**_SPACED)(b), harmless("whitespace")),
    "escaped": lambda b: (_body(ensure_ascii=True)(b), harmless("escapes")),
    "as Python writes it": lambda b: (
        json.dumps(json.loads(b)).encode(),
        harmless("whitespace", *([] if _is_ascii(b) else ["escapes"])),
    ),
    "pretty-printed with a byte order mark and a newline": lambda b: (
        b"\xef\xbb\xbf" + _body(indent=1, separators=None)(b) + b"\n",
        harmless("bom", "whitespace"),
    ),
    "keys sorted": lambda b: (_body(sort_keys=True)(b), harmless("reencoded")),
    "keys sorted and pretty-printed": lambda b: (
        _body(sort_keys=True, indent=2, separators=None)(b),
        harmless("reencoded"),
    ),
    "key twice": lambda b: (b.replace(b"{", b'{"id":"x",', 1), false("changed")),
    "not JSON": lambda b: (b"Internal Server Error", false("changed")),
    "empty": lambda _: (b"", false("changed")),
}
_STREAM_DAMAGES: Mapping[str, Callable[[bytes], Damage]] = {
    **_PLAIN,
    "attestation comment left in": lambda b: (
        with_comment(b, "a.b.c"),
        PROVEN,
    ),
    "newline lost": lambda b: (b[:-1], harmless("newline")),
    "spaced": lambda b: (respelt(b, **_SPACED), harmless("whitespace")),
    "escaped": lambda b: (respelt(b, ensure_ascii=True), harmless("escapes")),
    "keys sorted": lambda b: (respelt(b, sort_keys=True), harmless("reencoded")),
    "CRLF for LF": lambda b: (b.replace(b"\n", b"\r\n"), harmless("line_endings")),
    "CR for LF": lambda b: (b.replace(b"\n", b"\r"), harmless("line_endings")),
    "CRLF for LF, and spaced": lambda b: (
        respelt(b, **_SPACED).replace(b"\n", b"\r\n"),
        harmless("line_endings", "whitespace"),
    ),
    "comment added": lambda b: (
        events(b)[0] + b": keep-alive\n\n" + b"".join(events(b)[1:]),
        harmless("comments_added"),
    ),
    "comment added, line ends changed": lambda b: (
        b": keep-alive\r\n\r\n" + b.replace(b"\n", b"\r\n"),
        harmless("line_endings", "comments_added"),
    ),
    "event after the end": lambda b: (b + events(b)[0], false("changed")),
    "event that is not JSON": lambda b: (
        events(b)[0] + b"data: {\n\n" + b"".join(events(b)[1:]),
        false("changed"),
    ),
    "empty": lambda _: (b"", false("changed")),
}


def without(*places: int) -> Callable[[bytes], bytes]:
    """The stream without some of its events."""

    def drop(stream: bytes) -> bytes:
        items = events(stream)
        gone = {place % len(items) for place in places}
        return b"".join(e for n, e in enumerate(items) if n not in gone)

    return drop


def lost(expected: Expected, *places: int) -> Callable[[bytes], Damage]:
    """As a damage."""
    return lambda stream: (without(*places)(stream), expected)
