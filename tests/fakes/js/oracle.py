"""The Python implementation, to hold the TypeScript one against.

Reads requests, one JSON array a line: a name of `ANSWERS` and its arguments; writes the
answers, one JSON value a line. Bytes are base64.

    PYTHONPATH=tests python -m fakes.js.oracle
"""

import base64
import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

from fakes.world import ABSENT, STREAM, STREAM_REQUEST, make_world

from attest._version import __version__
from attest.bundle import Bundle
from attest.canonical import canonical, read_json
from attest.claims import SALTED, TOKENS
from attest.digests import digest
from attest.errors import AttestError, FormatError, InputError
from attest.keys import Algorithm
from attest.policy import Policy, Tier
from attest.reasons import REASONS
from attest.request import prompt_digest, request_facts, semantic_digest
from attest.sse import EventSplitter
from attest.transcript import Dialect, Transcript, output_digest
from attest.verify import verify

ROOT = Path(__file__).parents[3]


def _load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _judged(bundle, policy, options):
    found = verify(bundle, policy, **options).to_json()
    return {name: found[name] for name in ("verdict", "tier", "measured", "steps")}


def situations():
    """One for each code of the table, each with what Python makes of it."""
    module = _load(ROOT / "tests" / "unit" / "attest" / "test_reasons.py")
    found = []
    for code, made in module.SITUATIONS.items():
        alone = isinstance(made, Bundle)
        bundle, world, changes = (made, module.WORLD, {}) if alone else made
        given = {k: v for k, v in changes.items() if k in ("at", "nonce", "audience")}
        demands = {k: v for k, v in changes.items() if k not in given}
        policy = Policy(**{"authorities": world.policy.authorities, **demands})
        options = {"at": module.NOW, **given}
        found.append(_situation(code, bundle, policy, options))
    return found + list(_others(module))


def _situation(name, bundle, policy, options):
    return {
        "name": name,
        "bundle": base64.b64encode(bundle.dumps()).decode(),
        "policy": policy.to_json(),
        "options": options,
        "expected": _judged(bundle, policy, options),
    }


def _others(module):
    """What no code of the table is about: other keys, a stream, a witnessed log, …"""
    options = {"at": module.NOW}
    for alg in Algorithm:
        world = make_world(alg=alg)
        stream = world.bundle(STREAM_REQUEST, STREAM)
        yield _situation(f"{alg} body", world.bundle(), world.policy, options)
        yield _situation(f"{alg} stream", stream, world.policy, options)
    listed = module.LOG.prove(module.recalled())
    policy = replace(module.LISTED.policy, min_tier=Tier.T2, max_status_age_seconds=9)
    yield _situation("T2", listed, policy, options)
    asked = {"nonce": "nonce-of-mine", "audience": "me"}
    bundle = module.WORLD.bundle(nonce=asked["nonce"], claims={"aud": "me"})
    yield _situation("nonce", bundle, module.WORLD.policy, options | asked)
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
    request = json.dumps(body).encode()
    bundle = module.WORLD.bundle(request, private={"request.sampling": ABSENT})
    reordered = json.dumps(dict(reversed(body.items()))).encode()
    for copy in (json.dumps(body, indent=1).encode(), reordered):
        respelt = replace(bundle, request=copy)
        yield _situation("respelt request", respelt, module.WORLD.policy, options)


def judge(cases):
    """The verdict about each case; where its bundle is none, the code of the error."""
    answers = []
    for case in cases:
        try:
            bundle = Bundle.loads(base64.b64decode(case["bundle"]))
        except InputError as error:
            answers.append(error.code)
            continue
        policy = Policy.from_json(json.dumps(case["policy"]).encode())
        answers.append(_judged(bundle, policy, case["options"]))
    return answers


def policies(texts):
    """The JSON form of each policy as it was read; null where it is none."""
    answers = []
    for text in texts:
        try:
            answers.append(Policy.from_json(base64.b64decode(text)).to_json())
        except AttestError:
            answers.append(None)
    return answers


def documents(texts):
    """Digest of the RFC 8785 form of each JSON text; its error where it has none."""
    answers = []
    for text in texts:
        try:
            value = read_json(base64.b64decode(text), max_bytes=1 << 20)
        except FormatError:
            answers.append("refused")
            continue
        try:
            answers.append(digest(canonical(value)))
        except FormatError:
            answers.append("no canonical form")
    return answers


def streams(cases):
    """The events of each stream, given in chunks; the last is what was left."""
    answers = []
    for chunks in cases:
        splitter = EventSplitter()
        events = [
            [_text(e.raw), _text(e.name), _text(e.data), bool(e.comments)]
            for chunk in chunks
            for e in splitter.feed(base64.b64decode(chunk))
        ]
        answers.append([*events, _text(splitter.flush())])
    return answers


def _text(data):
    return None if data is None else base64.b64encode(data).decode()


def answers(cases):
    """What each answer says."""
    return [_read(Dialect(dialect), base64.b64decode(body)) for dialect, body in cases]


def _read(dialect, body):
    transcript = Transcript(dialect)
    if body[:1] == b"{":
        transcript.feed_body(body)
    else:
        splitter = EventSplitter()
        for event in splitter.feed(body):
            transcript.feed_event(event)
        transcript.end(splitter.flush())
    return {
        "outcome": transcript.outcome(),
        "outputs": {o["index"]: output_digest(o) for o in transcript.outputs()},
        "reasons": transcript.finish_reasons,
        "choices": transcript.choice_count,
        "id": transcript.response_id,
        "model": transcript.response_model,
        "usage": transcript.usage,
    }


def requests(cases):
    """The facts of each request; null where it is refused."""
    found = []
    for dialect, body in cases:
        try:
            value = read_json(base64.b64decode(body), max_bytes=1 << 20)
            facts = request_facts(value, Dialect(dialect))
        except FormatError:
            found.append(None)
            continue
        found.append(
            {
                "model": facts.model,
                "stream": facts.stream,
                "choices": facts.expected_choices,
                "sampling": dict(facts.sampling),
                "prompt": prompt_digest(facts),
                "semantic": semantic_digest(facts),
            }
        )
    return found


def tables():
    """The tables that both sides have."""
    return {
        "version": __version__,
        "reasons": {
            reason.code: {"status": reason.status, "meaning": reason.meaning}
            for reason in REASONS.values()
        },
        "tokens": {
            typ: {claim.name: claim.required for claim in schema}
            for typ, schema in TOKENS.items()
        },
        "salted": sorted(claim.name for claim in SALTED),
    }


ANSWERS = {
    found.__name__: found
    for found in (
        answers,
        documents,
        judge,
        policies,
        requests,
        situations,
        streams,
        tables,
    )
}

if __name__ == "__main__":
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        sys.stdout.write(json.dumps(ANSWERS[name](*arguments)) + "\n")
        sys.stdout.flush()
