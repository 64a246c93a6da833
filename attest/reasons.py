"""Why a step of a verification is not simply passed: one stable code for each reason.

Codes are `step.word`. They never change their meaning and are never used again for
another; new ones may come. The table is the documentation (docs/verify.md) and what the
other implementations are held to.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

__all__ = ["REASONS", "Finding", "Reason"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason, as it was met.

    Attributes:
        code: of the table.
        detail: one line for people. It may hold words from outside, spelt in ASCII.
        about: what it speaks of, such as the id of a principle; may be empty.
        expected: what was demanded; may be empty.
        found: what was there; may be empty.
    """

    code: str
    detail: str
    about: str = ""
    expected: str = ""
    found: str = ""

    def to_json(self) -> dict[str, str]:
        """The finding for machines; what is empty is left out."""
        names = ("code", "detail", "about", "expected", "found")
        return {name: text for name in names if (text := getattr(self, name))}


@dataclass(frozen=True, slots=True)
class Reason:
    """One row of the table.

    Attributes:
        status: what the step then is: failed (a definite no), unknown (cannot tell),
            not checked, content only (the content is proven, the bytes at hand are
            not), or note (the step is ok, and this is said).
        meaning: one line.
    """

    code: str
    status: str
    meaning: str


_FAILED, _UNKNOWN, _UNCHECKED = "failed", "unknown", "not checked"
_CONTENT, _NOTE = "content only", "note"

# Beside the rows below, every step can fail by these.
_FORM = "breaks the strict rules of its form"
_ALGORITHM = "a signature algorithm that the key may not use"
_VERSION = "a format newer than this verifier: upgrade it"

_ROWS: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    "form": (
        ("format", _FAILED, f"the token {_FORM}"),
        ("algorithm", _FAILED, "an algorithm that no gateway uses, such as none"),
        ("disclosure", _FAILED, "a disclosure that does not belong to this token"),
        ("unsupported_version", _UNKNOWN, _VERSION),
    ),
    "manifest": (
        ("format", _FAILED, f"the manifest {_FORM}"),
        ("signature", _FAILED, "too few of the trusted authorities signed it"),
        ("expired", _FAILED, "the token was signed outside the manifest's validity"),
        ("unsupported_version", _UNKNOWN, _VERSION),
        ("not_given", _UNCHECKED, "a refusal without a manifest"),
    ),
    "key": (
        ("format", _FAILED, f"a key certificate {_FORM}"),
        ("algorithm", _FAILED, _ALGORITHM),
        (
            "uncertified",
            _FAILED,
            (
                "no certificate at hand is for the key that signed: forged, or these "
                "are the documents of another replica or start"
            ),
        ),
        ("issuer", _FAILED, "certified by neither an authority nor its delegate"),
        ("signature", _FAILED, "the certificate is not signed by its issuer"),
        ("expired", _FAILED, "signed outside the period of the certificate"),
        ("evidence_unavailable", _UNKNOWN, "what is needed to judge it is not there"),
        ("unsupported_version", _UNKNOWN, _VERSION),
    ),
    "boot": (
        ("format", _FAILED, f"the boot record {_FORM}"),
        ("algorithm", _FAILED, _ALGORITHM),
        ("signature", _FAILED, "the boot record is not signed by the session key"),
        (
            "other_replica",
            _FAILED,
            "the boot record is a true one, of another replica or start",
        ),
        ("unsupported_version", _UNKNOWN, _VERSION),
    ),
    "signature": (
        ("algorithm", _FAILED, _ALGORITHM),
        ("signature", _FAILED, "it is not signed by the certified key"),
    ),
    "agreement": (
        ("boot", _FAILED, "the token names another boot record"),
        ("manifest", _FAILED, "the token names another manifest"),
        ("key_manifest", _FAILED, "the key is not certified for this manifest"),
        ("gateway", _FAILED, "token, boot record and key are of several gateways"),
        ("weights", _FAILED, "the weights are not the manifest's"),
        ("measurement", _FAILED, "the token claims more than the boot record"),
        ("constitution", _FAILED, "the token states another constitution"),
        ("engine", _FAILED, "the manifest does not allow this engine"),
        ("dtype", _FAILED, "the manifest does not allow this number format"),
        ("time", _FAILED, "the token is older than its boot record"),
        ("model", _NOTE, "another model name answered than was asked for"),
    ),
    "content": (
        ("not_given", _UNCHECKED, "neither request nor response is at hand"),
        ("request_not_disclosed", _UNKNOWN, "the request's digest is not disclosed"),
        ("request_changed", _FAILED, "another request was attested"),
        (
            "request_form",
            _CONTENT,
            (
                "messages, tools, model and sampling are as attested; only the "
                "spelling of the request differs"
            ),
        ),
        ("compressed", _CONTENT, "still compressed"),
        ("bom", _CONTENT, "a byte order mark was put in front"),
        ("newline", _CONTENT, "white space at the end was added or lost"),
        ("whitespace", _CONTENT, "white space between JSON tokens was changed"),
        ("escapes", _CONTENT, "characters in JSON strings were escaped otherwise"),
        ("line_endings", _CONTENT, "line ends of the stream were changed"),
        ("comments_added", _CONTENT, "comments were put into the stream"),
        ("done_lost", _CONTENT, "the event that ends the stream was lost"),
        (
            "reencoded",
            _CONTENT,
            (
                "written anew, such as with its keys in another order; all that the "
                "token states of the answer is as attested, the rest is not proven"
            ),
        ),
        (
            "comments_lost",
            _CONTENT,
            (
                "parts of the stream without text were lost, most likely comments; all "
                "that the token states of the answer is as attested"
            ),
        ),
        (
            "event_lost",
            _CONTENT,
            "the last event or events were lost; the text is whole and as attested",
        ),
        ("text_only", _CONTENT, "the text of a choice alone, as attested"),
        ("other_response", _FAILED, "it is another response: its id differs"),
        ("answer_changed", _FAILED, "a text of the answer was changed"),
        ("tool_call_changed", _FAILED, "a tool call was changed"),
        ("finish_reason_changed", _FAILED, "a finish reason was changed"),
        ("model_changed", _FAILED, "the name of the model was changed"),
        ("usage_changed", _FAILED, "token counts were changed"),
        ("truncated", _FAILED, "its end is missing; the rest cannot be told"),
        (
            "not_disclosed",
            _FAILED,
            (
                "the bytes differ; whether the text does cannot be told, since the "
                "token's out.N are not disclosed"
            ),
        ),
        ("changed", _FAILED, "the bytes differ, and no harmless change explains it"),
    ),
    "freshness": (
        ("no_nonce", _NOTE, "no nonce was given: a replay would not be noticed"),
        ("future", _FAILED, "signed in the future of this clock"),
        ("nonce", _FAILED, "the nonce is not the one that was sent"),
        ("audience", _FAILED, "the token is for another audience"),
    ),
    "log": (
        ("not_given", _UNCHECKED, "the bundle holds no log proof"),
        ("unnamed", _UNCHECKED, "neither manifest nor policy names a log"),
        ("format", _FAILED, f"checkpoint or proof {_FORM}"),
        ("signature", _FAILED, "no known log signed the checkpoint"),
        ("false", _FAILED, "the token does not lead to the checkpoint's root"),
        ("back_dated", _FAILED, "a witness saw the token before it was signed"),
        ("future", _FAILED, "cosigned in the future of this clock"),
        ("unwitnessed", _NOTE, "too few witnesses cosigned for tier T2"),
        ("late", _NOTE, "witnesses saw it too late for tier T2"),
    ),
    "status": (
        ("unnamed", _UNCHECKED, "neither manifest nor key names a status list"),
        ("not_given", _UNCHECKED, "no status list is at hand"),
        ("partly_given", _NOTE, "one of two status lists is not at hand"),
        ("format", _FAILED, f"a reference or a status list {_FORM}"),
        ("manifest_revoked", _FAILED, "the manifest was revoked before it was signed"),
        ("key_revoked", _FAILED, "the key was revoked before it was signed"),
        (
            "key_revoked_since",
            _UNKNOWN,
            "the key was revoked, and no witness shows that the token is older",
        ),
        ("revoked_later", _NOTE, "revoked after it was signed"),
        ("missing", _UNKNOWN, "the policy demands a list that is not at hand"),
        ("old", _UNKNOWN, "a list is older than the policy accepts"),
    ),
    "policy": (
        ("tier", _FAILED, "a lower tier than is demanded"),
        ("measurement", _FAILED, "a weaker measurement of the weights"),
        ("outcome", _FAILED, "the answer ended in a way that is not accepted"),
        ("system_prompt", _FAILED, "the system prompt is not of an accepted kind"),
        ("overrides", _FAILED, "the request was marked with other overrides"),
        ("age", _FAILED, "older than is accepted"),
        ("constitution", _FAILED, "the constitution is not among those allowed"),
        ("principle", _FAILED, "a required principle is not in the manifest"),
        ("absorption", _FAILED, "a principle was absorbed in its band too little"),
        ("resistance", _FAILED, "a principle resists further training too little"),
    ),
}


def _rows() -> Iterator[Reason]:
    for step, rows in _ROWS.items():
        for word, status, meaning in rows:
            yield Reason(f"{step}.{word}", status, meaning)


REASONS: Mapping[str, Reason] = {reason.code: reason for reason in _rows()}
