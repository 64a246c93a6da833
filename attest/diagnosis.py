"""What became of a request or a response whose bytes are not the attested ones.

Only a real change is called one. A copy whose spelling alone was changed is told from
it by two means: the change is undone and the signed digest says so (`attest.restore`),
or what the copy says is compared with what the token states: the salted digest of each
choice (`out.N`), finish reasons, model, token counts and the id. The second proves what
was compared and nothing else: log-probabilities, times and vendor members may be
others.

The codes are those of `attest.reasons`. Several may hold; real changes come first, and
where there is one, nothing else is said.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from attest.canonical import read_object
from attest.claims import Outcome
from attest.dialects import MAX_CHOICES, Dialect
from attest.digests import digests_equal
from attest.errors import FormatError
from attest.reasons import REASONS, Finding
from attest.request import request_facts, semantic_digest
from attest.restore import Attested, covered, restored, unwrapped
from attest.sse import EventSplitter
from attest.transcript import MAX_BODY, Transcript, output_digest

__all__ = ["diagnose_request", "diagnose_response"]

_STREAM_STARTS = (b"data:", b"event:", b":", b"id:", b"retry:")
# A string and the quote that ends it, or a bracket.
_STRUCTURE = re.compile(rb'"(?:[^"\\]++|\\.)*+("?)|([\[{])|[\]}]', re.DOTALL)


def diagnose_request(
    copy: bytes, claims: Mapping[str, Any], disclosed: Mapping[str, Any]
) -> tuple[Finding, ...]:
    """Why a request is not the one that `request.digest` names; that must be disclosed.

    Args:
        copy: the request at hand, of another digest.
        claims: of the verified token.
        disclosed: what its disclosures proved.
    """
    attested = Attested(disclosed["request.digest"], None)
    if restored(copy, attested) is not None or _means_the_same(copy, claims, disclosed):
        return (_finding("content.request_form"),)
    return (_finding("content.request_changed"),)


def diagnose_response(
    copy: bytes, claims: Mapping[str, Any], disclosed: Mapping[str, Any]
) -> tuple[Finding, ...]:
    """Why a response is not the one that `res.content_digest` names.

    Args:
        copy: the response at hand, of another digest.
        claims: of the verified token.
        disclosed: what its disclosures proved.
    """
    result = claims["res"]
    size, stream = result["content_bytes"], result["stream"]
    attested = Attested(result["content_digest"], size, stream)
    if codes := restored(copy, attested):
        return tuple(map(_finding, codes))
    body, _ = unwrapped(copy)
    dialect = _dialect(body)
    if dialect is None:
        return (_finding(_of_bare_text(body, claims, disclosed)),)
    found = _Comparison(body, _read(body, dialect), claims, disclosed)
    return tuple(found.findings())


def _finding(code: str, expected: str = "", found: str = "") -> Finding:
    return Finding(code, REASONS[code].meaning, expected=expected, found=found)


def _means_the_same(
    copy: bytes, claims: Mapping[str, Any], disclosed: Mapping[str, Any]
) -> bool:
    """Whether messages, tools, model and sampling are those of the token."""
    expected = disclosed.get("request.semantic_digest")
    if expected is None:
        return False
    try:
        value = read_object(unwrapped(copy)[0], max_bytes=MAX_BODY)
    except FormatError:
        return False
    for dialect in Dialect:
        try:
            facts = request_facts(value, dialect)
        except FormatError:
            continue
        found = semantic_digest(facts)
        if found is not None and digests_equal(found, expected):
            return facts.model == claims.get("gen_ai.request.model") and dict(
                facts.sampling
            ) == _sampling(claims, disclosed)
    return False


def _sampling(claims: Mapping[str, Any], disclosed: Mapping[str, Any]) -> Any:
    """The sampling that the token states; None where that may be hidden."""
    # A gateway states none for a request that asks for none. Without it only a token
    # that hides nothing says so.
    hides_nothing = len(disclosed) == len(claims["_sd"])
    return disclosed.get("request.sampling", {} if hides_nothing else None)


def _is_stream(body: bytes) -> bool:
    return body.lstrip().startswith(_STREAM_STARTS)


def _is_open(body: bytes) -> bool:
    """Whether a JSON text ends within a string, an object or a list."""
    depth = 0
    for match in _STRUCTURE.finditer(body):
        if match[0].startswith(b'"'):
            if not match[1]:
                return True
        else:
            depth += 1 if match[2] else -1
    return depth > 0


def _dialect(body: bytes) -> Dialect | None:
    """The dialect of an answer by its first object, None where it is no answer."""
    values = _objects(body) if _is_stream(body) else iter((body,))
    for data in values:
        try:
            value = read_object(data, max_bytes=MAX_BODY)
        except FormatError:
            # A body that was cut: what it was going to be stands at its beginning.
            return _dialect_of_fragment(data)
        found = _dialect_of(value)
        if found is not None:
            return found
    return None


def _objects(stream: bytes) -> Iterator[bytes]:
    splitter = EventSplitter()
    try:
        yield from (e.data for e in splitter.feed(stream) if e.data is not None)
    except FormatError:
        return


def _dialect_of(value: Mapping[str, Any]) -> Dialect | None:
    kind, form = value.get("type"), value.get("object")
    if isinstance(value.get("choices"), list):
        return Dialect.COMPLETIONS if form == "text_completion" else Dialect.CHAT
    if form == "response" or (isinstance(kind, str) and kind.startswith("response.")):
        return Dialect.RESPONSES
    is_message = isinstance(kind, str) and kind.startswith(("message", "content_block"))
    return Dialect.MESSAGES if is_message else None


_SIGNS = (
    (b'"object":"chat.completion', Dialect.CHAT),
    (b'"object":"text_completion"', Dialect.COMPLETIONS),
    (b'"object":"response"', Dialect.RESPONSES),
    (b'"type":"message"', Dialect.MESSAGES),
)


def _dialect_of_fragment(data: bytes) -> Dialect | None:
    start = b"".join(data.split())
    if not start.startswith(b"{"):
        return None
    return next((dialect for sign, dialect in _SIGNS if sign in start), None)


def _read(body: bytes, dialect: Dialect) -> Transcript:
    transcript = Transcript(dialect)
    if not _is_stream(body):
        transcript.feed_body(body)
        return transcript
    splitter = EventSplitter()
    try:
        for event in splitter.feed(body):
            transcript.feed_event(event)
    except FormatError:
        transcript.malformed = True
    transcript.end(splitter.flush())
    return transcript


def _of_bare_text(
    body: bytes, claims: Mapping[str, Any], disclosed: Mapping[str, Any]
) -> str:
    """The code for a copy that is no answer of an API: perhaps somebody kept the text.

    With it must have been said nothing else: no reasoning, refusal or tool call.
    """
    reasons = claims.get("gen_ai.response.finish_reasons", [])
    try:
        # An empty file says nothing, whatever was attested.
        texts = {body.decode(), body.rstrip(b"\r\n").decode()} - {""}
    except UnicodeDecodeError:
        return "content.changed"
    for index, reason in enumerate(reasons):
        expected = disclosed.get(f"out.{index}")
        for text in texts:
            for output in _outputs_of_text(text, index, reason):
                if expected is not None and output_digest(output) == expected:
                    return "content.text_only"
    return "content.changed"


def _outputs_of_text(
    text: str, index: int, reason: str | None
) -> Iterator[dict[str, Any]]:
    yield {
        "index": index,
        "role": "assistant",
        "content": text,
        "refusal": None,
        "reasoning": None,
        "tool_calls": [],
        "finish_reason": reason,
    }
    yield {"index": index, "text": text, "finish_reason": reason}


class _Comparison:
    """What a copy says, beside what the token states."""

    def __init__(
        self,
        body: bytes,
        copy: Transcript,
        claims: Mapping[str, Any],
        disclosed: Mapping[str, Any],
    ) -> None:
        self._body, self._copy = body, copy
        self._claims, self._disclosed = claims, disclosed
        self._result: Mapping[str, Any] = claims["res"]
        self._streamed = _is_stream(body)
        self._length = len(covered(body, stream=self._streamed))
        self._outputs = {output["index"]: output for output in copy.outputs()}
        self._cut = self._is_cut()

    def findings(self) -> tuple[Finding, ...]:
        """Real changes, or else what keeps it from being told, or else the spelling."""
        copy = self._copy
        if copy.malformed and not copy.choice_count and not self._cut:
            return (_finding("content.changed"),)
        changed = tuple(self._changes())
        if changed:
            return changed
        if self._cut and not self._texts_match():
            return (_finding("content.truncated"),)
        if self._hidden():
            return (_finding("content.not_disclosed"),)
        if not self._outputs or copy.malformed or copy.error_seen:
            return (_finding("content.changed"),)
        return (_finding(self._spelling()),)

    @property
    def _choices(self) -> int:
        choices: int = self._result["choices"]
        return choices

    @property
    def _reasons(self) -> list[str | None]:
        reasons: list[str | None] = self._claims.get(
            "gen_ai.response.finish_reasons", []
        )
        return reasons

    def _is_cut(self) -> bool:
        """Whether the copy ends too early."""
        if not self._streamed:
            return self._copy.malformed and _is_open(self._body)
        # What was sent may have had no end either.
        whole = self._result["outcome"] == Outcome.COMPLETE
        return self._copy.terminator_missing and (whole or self._is_shorter)

    @property
    def _is_shorter(self) -> bool:
        size: int = self._result["content_bytes"]
        return self._length < size

    def _hidden(self) -> bool:
        """Whether the digest of a choice is not disclosed."""
        return any(f"out.{n}" not in self._disclosed for n in range(self._choices))

    def _changes(self) -> Iterator[Finding]:
        copy, claims = self._copy, self._claims
        stated, found = claims.get("sub"), copy.response_id
        if None not in (stated, found) and stated != found:
            yield _finding("content.other_response", _shown(stated), _shown(found))
        stated, found = claims.get("gen_ai.response.model"), copy.response_model
        if stated != found and not (self._cut and found is None):
            yield _finding("content.model_changed", _shown(stated), _shown(found))
        yield from self._texts()
        yield from self._finish_reasons()
        yield from self._usage()

    def _texts(self) -> Iterator[Finding]:
        """Choices that differ, where nothing is missing that could explain it."""
        if self._cut:
            return
        codes = []
        # The count is anybody's, and may be astronomic.
        for index in range(min(self._choices, MAX_CHOICES)):
            expected = self._disclosed.get(f"out.{index}")
            output = self._outputs.get(index)
            if expected is None or self._matches(index, expected):
                continue
            word = "tool_call" if _only_calls(output) else "answer"
            codes.append(f"content.{word}_changed")
        if self._copy.choice_count > self._choices:
            codes.append("content.answer_changed")
        for code in dict.fromkeys(codes):
            yield _finding(code)

    def _matches(self, index: int, expected: str) -> bool:
        """Whether the text of a choice is as attested, its finish reason aside."""
        output = self._outputs.get(index)
        if output is None:
            return False
        stated = self._reasons[index] if index < len(self._reasons) else None
        forms = (output, {**output, "finish_reason": stated})
        return any(output_digest(form) == expected for form in forms)

    def _texts_match(self) -> bool:
        return all(
            self._matches(index, self._disclosed.get(f"out.{index}", ""))
            for index in range(self._choices)
        )

    def _finish_reasons(self) -> Iterator[Finding]:
        code = "content.finish_reason_changed"
        stated, found = self._reasons, list(self._copy.finish_reasons)
        if len(stated) != len(found):
            return
        for one, other in zip(stated, found, strict=True):
            if one != other and not (self._cut and other is None):
                yield _finding(code, _shown(one), _shown(other))
                return

    def _usage(self) -> Iterator[Finding]:
        if self._cut or self._usage_lost():
            return
        stated = tuple(
            self._claims.get(f"gen_ai.usage.{name}")
            for name in ("input_tokens", "output_tokens")
        )
        found = tuple(self._copy.usage)
        if stated != found:
            words = (" and ".join(map(_shown, counts)) for counts in (stated, found))
            yield _finding("content.usage_changed", *words)

    def _usage_lost(self) -> bool:
        """Whether this is a stream that says nothing of token counts."""
        return self._streamed and self._copy.usage == (None, None)

    def _spelling(self) -> str:
        """What was done to a copy that says all that was attested."""
        counted = "gen_ai.usage.output_tokens" in self._claims
        if self._cut or (counted and self._usage_lost()):
            return "content.event_lost"
        same_form = self._streamed == self._result["stream"]
        if self._streamed and same_form and self._is_shorter:
            return "content.comments_lost"
        return "content.reencoded"


def _only_calls(output: Mapping[str, Any] | None) -> bool:
    """Whether a choice says nothing but tool calls."""
    return (
        output is not None
        and bool(output.get("tool_calls"))
        and not (output["content"] or output["reasoning"] or output["refusal"])
    )


def _shown(value: object) -> str:
    # A copy is anybody's: its words must not forge a line, or fill the screen.
    return "nothing" if value is None else f"{value!a:.80}"
