"""Two bundles of one shape, one of them with markup wherever it holds words.

PYTHONPATH=tests python -m fakes.js.marked_up
"""

import base64
import json
import sys

from fakes.world import make_world


def _principle(words):
    return {
        "id": words,
        "title": words,
        "class": words,
        "routing": {"band": {"from": 0, "to": 500}, "layers": [0, 1]},
        "profile": {"layers": ["0.2", "0.5", "0.3"], "inBand": "0.7", "valid": True},
        "resistance": {
            "measured": {"worst": {"attack": words, "stepsBelowHalf": 5}},
            "required": {"minStepsBelowHalf": 9},
        },
    }


def _made(words):
    world = make_world(
        predicate={
            "model": {"name": words, "version": words},
            "constitution": {"id": words, "version": words},
            "principles": [_principle(words)],
            "limits": [words],
            "training": {"stages": [{"name": words, "method": words}]},
            "derivation": {"parent": "sha256:" + "0" * 64, "transformation": words},
            "runtime": {"engines": [words]},
        },
        boot={"engine": {"name": words, "version": words}, "iss": words},
        certificate={"sub": words},
    )
    message = {"role": words, "content": words}
    request = json.dumps({"model": words, "messages": [message, {words: words}]})
    choice = {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": words,
            "reasoning": words,
            "refusal": words,
            "tool_calls": [{"function": {"name": words, "arguments": words}}],
        },
        "finish_reason": "stop",
    }
    answer = json.dumps({"id": words, "model": words, "choices": [choice]})
    claims = {"iss": words, "jti": words}
    bundle = world.bundle(request.encode(), answer.encode(), claims=claims)
    return {
        "bundle": base64.b64encode(bundle.dumps()).decode(),
        "authority": json.dumps(world.authority.public.jwk),
    }


for line in sys.stdin:
    _, words = json.loads(line)
    sys.stdout.write(json.dumps([_made("harmless"), _made(words)]) + "\n")
    sys.stdout.flush()
