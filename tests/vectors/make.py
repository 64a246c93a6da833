"""Write the vectors that every implementation of the verifier is held to.

    PYTHONPATH=tests python tests/vectors/make.py

Run it again and nothing changes: keys, salts, ids and times are fixed. The bodies are
those that a real vLLM sent (`vllm-0.32/`), and a few that are derived from them. What
is expected of a case is written here by hand; the verifier has no say in it.
"""

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fakes.world import NOW, World, make_world, merged, with_comment

from attest import disclosures, tokens
from attest.bundle import Bundle
from attest.keys import PrivateKey
from attest.sse import EventSplitter
from attest.transcript import Dialect

HERE = Path(__file__).parent
RECORDED = HERE / "vllm-0.32"
NOTES = ["freshness.no_nonce", "log.not_given", "status.unnamed"]
"""What is said of every one of these bundles besides."""


def key(name: str) -> PrivateKey:
    """The same key for the same name, always."""
    seed = hashlib.sha256(f"attest-gateway test vector {name}".encode()).digest()
    return PrivateKey(Ed25519PrivateKey.from_private_bytes(seed))


def salts(name: str) -> Callable[[int], bytes]:
    """Salts that are the same for the same name, always."""
    counter = iter(range(1_000_000))
    return lambda size: hashlib.sha256(f"{name} {next(counter)}".encode()).digest()[
        :size
    ]


WORLD = make_world(
    keys=[key(name) for name in ("authority", "issuer", "session")],
    certificate={"jti": "key_1"},
    boot={"jti": "boot_1"},
)
SIBLING = WORLD.certified(
    key("session of another replica"),
    certificate={"jti": "key_2"},
    boot={"jti": "boot_2"},
)
STRANGER = make_world(
    keys=[key(name) for name in ("stranger", "stranger's issuer", "session")],
    certificate={"jti": "key_3"},
    boot={"jti": "boot_3"},
)


def token(
    name: str,
    request: bytes,
    response: bytes,
    dialect: Dialect,
    *,
    claims: Mapping[str, Any] | None = None,
    hidden: str = r"(?!)",
) -> str:
    """A token about an exchange; without the disclosures that match `hidden`."""
    public, private = WORLD.claims(request, response, dialect=dialect)
    concealed, opened = disclosures.conceal(private, random=salts(name))
    stated = merged({**public, **concealed, "jti": f"att_{name}"}, claims or {})
    compact = tokens.mint("inference-attestation+jwt", stated, WORLD.session)
    shown = [
        text
        for text, named in zip(opened, private, strict=True)
        if not re.match(hidden, named)
    ]
    return disclosures.join(compact, shown)


@dataclass(frozen=True)
class Expected:
    """What a verifier must find.

    Attributes:
        reasons: codes of the step that is the problem, in any order.
        step: that step; "" where all is proven.
    """

    verdict: str
    reasons: tuple[str, ...] = ()
    step: str = "content"

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "tier": "T0" if self.verdict == "false" else "T1",
            "problem": self.step or None,
            "reasons": list(self.reasons),
        }


PROVEN = Expected("proven", step="")


def harmless(*words: str) -> Expected:
    """The content is proven, the bytes are not."""
    return Expected("content_only", tuple(f"content.{word}" for word in words))


def false(*words: str) -> Expected:
    """A definite no."""
    return Expected("false", tuple(f"content.{word}" for word in words))


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

    @property
    def token(self) -> str:
        return token(self.name, self.request_body, self.response, self.dialect)

    def bundle(self) -> Bundle:
        return Bundle(
            token=self.token,
            key_certificates=(WORLD.certificate,),
            boot_record=WORLD.boot,
            manifest=WORLD.envelope,
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
    (path,) = RECORDED.glob(f"{name}.response.*")
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


USER = [{"role": "user", "content": "What is the capital of France?"}]
SYSTEM = {"role": "system", "content": "Be brief and kind."}
CHAT = {"model": "tiny", "messages": [SYSTEM, *USER], "max_tokens": 8}
CALL = '{"city": "Paris", "days": 3}'


def _with_tool_call(body: bytes) -> bytes:
    """A recorded chat whose answer is a call of a function instead."""
    value = json.loads(body)
    function = {"name": "get_weather", "arguments": CALL}
    call = {"id": "call_1", "type": "function", "function": function}
    value["choices"][0]["message"] |= {"content": None, "tool_calls": [call]}
    value["choices"][0]["finish_reason"] = "tool_calls"
    return compact(value)


def _with_arguments(stream: bytes) -> bytes:
    """The recorded stream of a tool call, with arguments in two parts."""
    items = events(stream)
    chunk = json.loads(items[1].removeprefix(b"data: "))
    parts = []
    for text in (CALL[:9], CALL[9:]):
        chunk["choices"][0]["delta"] = {
            "tool_calls": [{"index": 0, "function": {"arguments": text}}]
        }
        parts.append(b"data: " + compact(chunk) + b"\n\n")
    return b"".join([*items[:2], *parts, *items[2:]])


def _with_tool_use(body: bytes) -> bytes:
    """A recorded message that uses a tool instead."""
    value = json.loads(body)
    block = {"type": "tool_use", "id": "toolu_1", "name": "get_weather"}
    value["content"] = [{**block, "input": json.loads(CALL)}]
    value["stop_reason"] = "tool_use"
    return compact(value)


def _with_function_call(body: bytes) -> bytes:
    """A recorded response that calls a function instead."""
    value = json.loads(body)
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1"}
    value["output"] = [{**call, "name": "get_weather", "arguments": CALL}]
    value |= {"status": "completed", "incomplete_details": None}
    return compact(value)


def _exchanges() -> Iterator[Exchange]:
    chat, stream = recorded("chat"), recorded("chat_stream_usage")
    yield Exchange(
        "chat-plain",
        Dialect.CHAT,
        CHAT,
        chat,
        (
            ("one character changed", b" a\xef", b" b\xef", "answer_changed"),
            ("text added", b'"refusal":null', b'"refusal":"no"', "answer_changed"),
            (
                "usage changed",
                b'"completion_tokens":8',
                b'"completion_tokens":9',
                "usage_changed",
            ),
            ("model changed", b'"tiny"', b'"huge"', "model_changed"),
            ("finish reason changed", b'"length"', b'"stop"', "finish_reason_changed"),
            ("id changed", b'"chatcmpl-842', b'"chatcmpl-000', "other_response"),
            (
                "tool call added",
                b'"reasoning":null',
                b'"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]',
                "answer_changed",
            ),
        ),
        text=json.loads(chat)["choices"][0]["message"]["content"],
        more={
            "another answer": lambda _: (
                recorded("chat_request_id"),
                false("other_response", "answer_changed", "usage_changed"),
            ),
        },
    )
    yield Exchange(
        "chat-stream",
        Dialect.CHAT,
        {**CHAT, "stream": True, "stream_options": {"include_usage": True}},
        stream,
        (
            ("one character changed", b'" a"', b'" b"', "answer_changed"),
            (
                "usage changed",
                b'"completion_tokens":8',
                b'"completion_tokens":9',
                "usage_changed",
            ),
            ("model changed", b'"tiny"', b'"huge"', "model_changed"),
            ("finish reason changed", b'"length"', b'"stop"', "finish_reason_changed"),
        ),
        more={
            "[DONE] lost": lost(harmless("done_lost"), -1),
            "[DONE] lost and line ends changed": lambda b: (
                without(-1)(b).replace(b"\n", b"\r\n"),
                harmless("line_endings", "done_lost"),
            ),
            "last events lost": lost(harmless("event_lost"), -1, -2),
            "usage lost": lost(harmless("event_lost"), -2),
            "finish reason and all after it lost": lost(false("truncated"), -1, -2, -3),
            "part of the text lost": lost(false("answer_changed"), 4),
            "empty event lost": lost(harmless("comments_lost"), 3),
            "put together to one body": lambda _: (
                _assembled(stream),
                harmless("reencoded"),
            ),
        },
    )
    commented = stream.replace(b"\n\n", b"\n\n: ping\n\n", 2)
    yield Exchange(
        "chat-stream-with-comments",
        Dialect.CHAT,
        {**CHAT, "stream": True},
        commented,
        (("one character changed", b'" a"', b'" b"', "answer_changed"),),
        more={
            "comments removed": lambda _: (stream, harmless("comments_lost")),
            # Which of the comments were attested, nobody can tell.
            "comment added": lambda b: (
                events(b)[0] + b": keep-alive\n\n" + b"".join(events(b)[1:]),
                harmless("reencoded"),
            ),
            "comment added, line ends changed": lambda b: (
                b": keep-alive\r\n\r\n" + b.replace(b"\n", b"\r\n"),
                harmless("reencoded"),
            ),
            "comments removed, [DONE] lost": lambda _: (
                without(-1)(stream),
                harmless("event_lost"),
            ),
        },
    )
    yield Exchange(
        "chat-choices-plain",
        Dialect.CHAT,
        {**CHAT, "n": 2},
        recorded("chat_n2"),
        (
            (
                "usage changed",
                b'"prompt_tokens":37',
                b'"prompt_tokens":38',
                "usage_changed",
            ),
        ),
        more={
            "second choice lost": lambda b: (
                compact({**(v := json.loads(b)), "choices": v["choices"][:1]}),
                false("answer_changed"),
            ),
        },
    )
    yield Exchange(
        "chat-tools-plain",
        Dialect.CHAT,
        {**CHAT, "tools": [{"type": "function", "function": {"name": "get_weather"}}]},
        _with_tool_call(chat),
        (
            ("argument changed", b"Paris", b"Milan", "tool_call_changed"),
            ("argument respelt", b"3}", b"3 }", "tool_call_changed"),
            (
                "function changed",
                b'"get_weather"',
                b'"set_weather"',
                "tool_call_changed",
            ),
            ("id of the call changed", b'"call_1"', b'"call_2"', "tool_call_changed"),
        ),
    )
    yield Exchange(
        "chat-tools-stream",
        Dialect.CHAT,
        {**CHAT, "stream": True},
        _with_arguments(recorded("chat_tools_named_stream")),
        (("argument changed", b"Paris", b"Milan", "tool_call_changed"),)
        if b"Paris" in _with_arguments(recorded("chat_tools_named_stream"))
        else (("argument changed", b"days", b"deys", "tool_call_changed"),),
        more={"part of the arguments lost": lost(false("tool_call_changed"), 3)},
    )
    yield from _completions()
    yield from _responses()
    yield from _messages()


def _assembled(stream: bytes) -> bytes:
    """The body that would have come without `stream`, as a library puts it together."""
    text, last, usage = "", {}, None
    for event in events(stream):
        data = event.removeprefix(b"data: ")
        if data.startswith(b"{"):
            value = json.loads(data)
            usage = value.get("usage") or usage
            for choice in value["choices"]:
                text += choice["delta"].get("content") or ""
                last = {**value, "finish_reason": choice["finish_reason"]}
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": last["finish_reason"]}
    return compact(
        {
            "id": last["id"],
            "object": "chat.completion",
            "created": last["created"],
            "model": last["model"],
            "choices": [choice],
            "usage": usage,
        }
    )


def _completions() -> Iterator[Exchange]:
    request = {"model": "tiny", "prompt": "hello", "max_tokens": 1}
    yield Exchange(
        "completions-plain",
        Dialect.COMPLETIONS,
        {**request, "echo": True},
        recorded("completion_echo"),
        (
            (
                "one character changed",
                b'"hello world"',
                b'"hello World"',
                "answer_changed",
            ),
            (
                "usage changed",
                b'"completion_tokens":1',
                b'"completion_tokens":2',
                "usage_changed",
            ),
            ("model changed", b'"tiny"', b'"huge"', "model_changed"),
            ("finish reason changed", b'"stop"', b'"length"', "finish_reason_changed"),
        ),
        text="hello world",
        more={
            # Log-probabilities are covered by the digest of the bytes alone.
            "log-probability changed": lambda b: (
                b.replace(b"-6.158163070678711", b"-0.158163070678711", 1),
                harmless("reencoded"),
            ),
        },
    )
    yield Exchange(
        "completions-stream",
        Dialect.COMPLETIONS,
        {**request, "stream": True},
        recorded("completion_stream"),
        (
            ("one character added", b'"text":""', b'"text":"x"', "answer_changed"),
            ("model changed", b'"tiny"', b'"huge"', "model_changed"),
            ("finish reason changed", b'"stop"', b'"length"', "finish_reason_changed"),
        ),
        more={
            "[DONE] lost": lost(harmless("done_lost"), -1),
            "last events lost": lost(harmless("event_lost"), -1, -2),
            # Its text came whole: it is empty.
            "truncated": lambda b: (b[: len(b) * 2 // 3], harmless("event_lost")),
        },
    )


def _responses() -> Iterator[Exchange]:
    request = {"model": "tiny", "input": "hello", "max_output_tokens": 8}
    plain, stream = recorded("responses"), recorded("responses_stream")
    yield Exchange(
        "responses-plain",
        Dialect.RESPONSES,
        request,
        plain,
        (
            ("one character changed", b"eway", b"Eway", "answer_changed"),
            (
                "usage changed",
                b'"output_tokens":8',
                b'"output_tokens":9',
                "usage_changed",
            ),
            ("model changed", b'"tiny"', b'"huge"', "model_changed"),
            (
                "finish reason changed",
                b'"reason":"max_output_tokens"',
                b'"reason":"content_filter"',
                "finish_reason_changed",
            ),
        ),
        text=json.loads(plain)["output"][0]["content"][0]["text"],
    )
    yield Exchange(
        "responses-stream",
        Dialect.RESPONSES,
        {**request, "stream": True},
        stream,
        (
            (
                "one character of a part changed",
                b'"delta":"C"',
                b'"delta":"D"',
                "answer_changed",
            ),
            ("model changed", b'"tiny"', b'"huge"', "model_changed"),
        ),
        more={
            "one character changed everywhere": lambda b: (
                b.replace(b'"C', b'"D'),
                false("answer_changed"),
            ),
            "usage changed": lambda b: (
                b.replace(b'"output_tokens":3', b'"output_tokens":4'),
                false("usage_changed"),
            ),
            "finish reason changed": lambda b: (
                b.replace(
                    b'"reason":"max_output_tokens"', b'"reason":"content_filter"'
                ),
                false("finish_reason_changed"),
            ),
            "last event lost": lost(harmless("event_lost"), -1),
            "truncated": lambda b: (b[: len(b) * 2 // 3], harmless("event_lost")),
            "truncated within the text": lambda b: (
                b[: b.index(b'"delta":"\\f')],
                false("truncated"),
            ),
        },
    )
    yield Exchange(
        "responses-tools-plain",
        Dialect.RESPONSES,
        request,
        _with_function_call(plain),
        (("argument changed", b"Paris", b"Milan", "tool_call_changed"),),
    )


def _messages() -> Iterator[Exchange]:
    request = {
        "model": "tiny",
        "max_tokens": 8,
        "system": "Be brief.",
        "messages": USER,
    }
    plain, stream = recorded("messages"), recorded("messages_stream")
    yield Exchange(
        "messages-plain",
        Dialect.MESSAGES,
        request,
        plain,
        (
            ("one character changed", b" brow", b" crow", "answer_changed"),
            (
                "usage changed",
                b'"output_tokens":8',
                b'"output_tokens":9',
                "usage_changed",
            ),
            ("model changed", b'"tiny"', b'"huge"', "model_changed"),
            (
                "finish reason changed",
                b'"max_tokens"',
                b'"end_turn"',
                "finish_reason_changed",
            ),
        ),
        text=json.loads(plain)["content"][0]["text"],
    )
    yield Exchange(
        "messages-stream",
        Dialect.MESSAGES,
        {**request, "stream": True},
        stream,
        (
            ("one character changed", b'" at"', b'" et"', "answer_changed"),
            (
                "usage changed",
                b'"output_tokens":3',
                b'"output_tokens":4',
                "usage_changed",
            ),
            ("model changed", b'"tiny"', b'"huge"', "model_changed"),
            (
                "finish reason changed",
                b'"max_tokens"',
                b'"end_turn"',
                "finish_reason_changed",
            ),
        ),
        more={
            "last event lost": lost(harmless("done_lost"), -1),
            "last events lost": lost(harmless("event_lost"), -1, -2),
        },
    )
    yield Exchange(
        "messages-tools-plain",
        Dialect.MESSAGES,
        request,
        _with_tool_use(plain),
        (("argument changed", b"Paris", b"Milan", "tool_call_changed"),),
        more={
            # The input is an object here: its spelling says nothing.
            "argument respelt": lambda b: (
                b.replace(b'"city":"Paris"', b'"city": "Paris"'),
                harmless("whitespace"),
            ),
        },
    )


def mixed_up(exchange: Exchange, other: Exchange) -> Iterator[dict[str, Any]]:
    """Evidence that does not belong together, and changed requests."""
    bundle, request = exchange.bundle(), exchange.request
    sibling = {
        "keyCertificates": [SIBLING.certificate],
        "bootRecord": SIBLING.boot,
        "manifest": json.loads(SIBLING.envelope),
    }
    hidden = token(
        exchange.name,
        bundle.request or b"",
        exchange.response,
        exchange.dialect,
        hidden="out",
    )
    spelt = compact(json.loads(exchange.response), sort_keys=True)
    lied = exchange.response.replace(b"tiny", b"huge")
    yield case("keys of another replica", sibling, _at("key", "uncertified"))
    yield case(
        "boot record of another replica",
        {
            "keyCertificates": [WORLD.certificate, SIBLING.certificate],
            "bootRecord": SIBLING.boot,
        },
        _at("boot", "other_replica"),
    )
    yield case(
        "boot record of a stranger",
        {"bootRecord": tokens.mint("eat+jwt", {}, key("nobody"))},
        _at("boot", "signature"),
    )
    yield case(
        "token of another answer",
        {"token": other.token},
        false("other_response", "answer_changed", "usage_changed", "request_changed"),
    )
    yield case(
        "manifest of another authority",
        {"manifest": json.loads(STRANGER.envelope)},
        _at("manifest", "signature"),
    )
    yield case(
        "texts not disclosed, keys sorted",
        {"token": hidden, "response": spelt},
        false("not_disclosed"),
    )
    yield case(
        "texts not disclosed, pretty-printed",
        {
            "token": hidden,
            "response": json.dumps(json.loads(exchange.response)).encode(),
        },
        harmless("whitespace", "escapes"),
    )
    yield case(
        "texts not disclosed, model changed",
        {"token": hidden, "response": lied},
        false("model_changed"),
    )
    for name, body, expected in (
        (
            "request pretty-printed",
            json.dumps(request, indent=2).encode(),
            "request_form",
        ),
        ("request with sorted keys", compact(request, sort_keys=True), "request_form"),
        ("request with a newline", compact(request) + b"\n", "request_form"),
    ):
        yield case(name, {"request": body}, harmless(expected))
    for name, change in (
        ("question changed", {"messages": [*USER, *USER]}),
        ("sampling changed", {"max_tokens": 9}),
        ("model asked for changed", {"model": "huge"}),
    ):
        changed = compact({**request, **change})
        yield case(name, {"request": changed}, false("request_changed"))
    yield case(
        "request not disclosed",
        {"token": exchange.token.partition("~")[0]},
        replace(Expected("unknown", ("content.request_not_disclosed",))),
    )
    yield case("neither body", {"request": None, "response": None}, PROVEN)


def _at(step: str, word: str) -> Expected:
    return Expected("false", (f"{step}.{word}",), step)


def case(name: str, changes: Mapping[str, Any], expected: Expected) -> dict[str, Any]:
    """One case: members of the bundle that are replaced, and what must be found."""
    given = {
        member: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for member, value in changes.items()
    }
    return {"name": name, "changes": given, "expected": expected.to_json()}


def document(
    exchange: Exchange, cases: list[dict[str, Any]], world: World = WORLD
) -> dict[str, Any]:
    """One file."""
    return {
        "dialect": str(exchange.dialect),
        "streamed": exchange.streamed,
        "at": NOW,
        "authority": world.authority.public.jwk,
        "policy": world.policy.to_json(),
        "bundle": exchange.bundle().to_json(),
        "cases": cases,
    }


def documents() -> dict[str, dict[str, Any]]:
    """Every file, by its path below this folder."""
    exchanges = {exchange.name: exchange for exchange in _exchanges()}
    files = {
        f"damage/{name}.json": document(
            exchange,
            [
                case(what, {"response": body}, found)
                for what, body, found in exchange.damages()
            ],
        )
        for name, exchange in exchanges.items()
    }
    plain = exchanges["chat-plain"]
    other = replace(
        plain,
        name="other",
        request={**CHAT, "messages": USER},
        response=recorded("chat_request_id"),
    )
    files["damage/mixed-up.json"] = document(plain, list(mixed_up(plain, other)))
    return files


def text(value: Mapping[str, Any]) -> str:
    """A file as it is written."""
    return json.dumps(value, indent=1, ensure_ascii=True) + "\n"


def main() -> None:
    """Write every file."""
    for path, value in documents().items():
        (HERE / path).parent.mkdir(exist_ok=True)
        (HERE / path).write_text(text(value), "utf-8")


if __name__ == "__main__":
    main()
