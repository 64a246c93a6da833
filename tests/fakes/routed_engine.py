"""An engine on a real socket that answers by route, as vLLM does with our plug-in.

Each route is a function of the request; what a test changes, it replaces:

    engine.evidence["serving_state"]["lora"] = {}   # report another setting
    engine.evidence = None                          # no plug-in
    engine.models[0]["parent"] = "base"             # show an adapter
"""

import copy
import json
import os
from urllib.parse import parse_qs, urlsplit

from fakes.upstream import Answer, ScriptedEngine, head, json_answer

from gateway.engine.peer import start_time
from gateway.serving import _FIXED

__all__ = ["RoutedEngine", "honest_evidence"]


def honest_evidence(manifest, *, reference_sha256=None):
    """What the plug-in reports where everything is as the manifest says."""
    load = {"root": manifest.tensor_root, "count": manifest.tensor_count}
    if reference_sha256 is not None:
        load["reference_sha256"] = reference_sha256
    template = manifest.predicate["runtime"].get("chatTemplate")
    return {
        "pid": os.getpid(),
        "started": start_time(os.getpid()),
        "workers": [{"started": 1, "loads": [load]}],
        "serving_state": copy.deepcopy(dict(_FIXED))
        | {
            "dtype": "float32",
            "quantization": None,
            "chat_template_sha256": template,
            "installed_middleware": [],
        },
        "entry_points": {"vllm.general_plugins": [{"name": "attested"}]},
        "routes": ["GET /health"],
        "versions": {"vllm": "0.32.0"},
    }


class RoutedEngine(ScriptedEngine):
    """Attributes: evidence, models, version, exposed routes, text of a completion."""

    def __init__(self, manifest, name="toy"):
        super().__init__()
        self.evidence = honest_evidence(manifest)
        self.models = [{"id": name, "owned_by": "vllm", "parent": None}]
        self.version = "0.32.0"
        self.exposed = set()
        self.text = "hello"
        self.health = 200
        self.resident = [{"sound": True, "sha256": "0" * 64}]

    async def _one(self, reader, writer):
        await self._record(reader)
        self._answers.clear()
        self._answers.append(self.route(self.requests[-1]))
        for step in self._answers[0].steps:
            writer.write(step)
        await writer.drain()
        return True

    def route(self, request):
        """The answer to one request."""
        url = urlsplit(request.path)
        if request.method == "HEAD":
            status = 405 if url.path in self.exposed else 404
            return Answer([head(status, content_length=0)])
        return getattr(self, f"_{url.path.strip('/').replace('/', '_')}", _absent)(
            request
        )

    def _health(self, _):
        return json_answer(b"", self.health)

    def _version(self, _):
        return _json({"version": self.version})

    def _v1_models(self, _):
        return _json({"object": "list", "data": self.models})

    def _attest_evidence(self, request):
        if self.evidence is None:
            return _absent(request)
        nonce = parse_qs(urlsplit(request.path).query).get("nonce")
        if nonce is None:
            return _json({"detail": "nonce"}, 400)
        return _json({"nonce": nonce[0], **self.evidence})

    def _attest_resident(self, request):
        nonce = parse_qs(urlsplit(request.path).query)["nonce"][0]
        return _json({"nonce": nonce, "workers": self.resident})

    def _v1_completions(self, request):
        asked = json.loads(request.body)["prompt"]
        prompts = asked if isinstance(asked, list) else [asked]
        choices = [
            {"index": i, "text": f"{prompt[:3]}{self.text}", "finish_reason": "length"}
            for i, prompt in enumerate(prompts)
        ]
        return _json({"id": "c", "model": "toy", "choices": choices})

    def _v1_chat_completions(self, request):
        message = {"role": "assistant", "content": self.text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return _json({"id": "c", "model": "toy", "choices": [choice]})


def _json(value, status=200):
    return json_answer(json.dumps(value).encode(), status)


def _absent(_):
    return _json({"detail": "Not Found"}, 404)
