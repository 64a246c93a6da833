"""Reading back what the running engine was really set up to do."""

import hashlib
import json
import os
import re
from typing import Any

import pydantic
from fastapi import FastAPI
from vllm.config import VllmConfig

__all__ = ["serving_state"]

# Differ between two boots of one configuration without changing any answer: identity,
# addresses, and the cache size that follows from the memory found free.
_PER_BOOT = frozenset(
    {
        "instance_id",
        "host",
        "port",
        "uds",
        "data_parallel_master_ip",
        "data_parallel_master_port",
        "master_addr",
        "master_port",
        "_data_parallel_master_port_list",
        "num_gpu_blocks",
        "num_cpu_blocks",
        "model_loader_extra_config",
    }
)
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")

# Each opens a way round the checked weights or runs somebody else's code; all are off
# unless somebody turned them on.
_SWITCHES = (
    "VLLM_SERVER_DEV_MODE",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING",
    "VLLM_ALLOW_INSECURE_SERIALIZATION",
    "VLLM_LORA_RESOLVER_CACHE_DIR",
    "VLLM_LORA_RESOLVER_HF_REPO_LIST",
    "VLLM_USE_RUST_FRONTEND",
    "VLLM_USE_MODELSCOPE",
)


def _sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _stable(value: Any, paths: dict[str, str]) -> Any:
    """JSON that is equal at the next boot: no addresses, no paths of this one."""
    if isinstance(value, dict):
        return {
            str(key): _stable(item, paths)
            for key, item in value.items()
            if key not in _PER_BOOT
        }
    if isinstance(value, (list, tuple)):
        return [_stable(item, paths) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_stable(item, paths) for item in value), key=repr)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = _ADDRESS.sub("", str(value))
    for path, name in paths.items():
        text = text.replace(path, name)
    return text


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _paths(config: Any) -> dict[str, str]:
    run_dir = os.environ.get("VLLM_RPC_BASE_PATH", "")
    # Longest first, so that a model folder inside the run folder keeps its name.
    named = {config.model_config.model: "<model>", run_dir: "<run>"}
    return {path: named[path] for path in sorted(named, key=len, reverse=True) if path}


def _config_digest(state: Any) -> str:
    """Over the whole resolved configuration, the frontend's and the environment's."""
    config = state.vllm_config
    model = config.model_config
    whole = {
        "engine": pydantic.TypeAdapter(VllmConfig).dump_python(
            config, mode="json", fallback=str
        ),
        # vLLM's own dump leaves these two out.
        "model": model.hf_config.to_dict(),
        "sampling": model.get_diff_sampling_param(),
        "frontend": vars(state.args),
        "environment": {
            name: value
            for name, value in os.environ.items()
            if name.startswith("VLLM_") and name != "VLLM_RPC_BASE_PATH"
        },
    }
    return _sha256(_canonical(_stable(whole, _paths(config))))


def _template_digest(state: Any, *, tools: bool) -> str | None:
    """Of the template that a request without its own gets; None without any."""
    # Only tokenizers of the transformers library have templates.
    from vllm.renderers.hf import resolve_chat_template  # noqa: PLC0415

    config = state.vllm_config.model_config
    renderer = state.online_renderer
    tokenizer = renderer.renderer.get_tokenizer()
    if not hasattr(tokenizer, "get_chat_template"):
        return None
    template = resolve_chat_template(
        tokenizer, renderer.chat_template, [] if tools else None, model_config=config
    )
    return None if template is None else _sha256(template.encode())


def _name(factory: Any) -> str:
    name = getattr(factory, "__qualname__", type(factory).__qualname__)
    return f"{getattr(factory, '__module__', '?')}.{name}"


def _none_or_stable(value: Any, paths: dict[str, str]) -> Any:
    if value is None:
        return None
    dumped = pydantic.TypeAdapter(type(value)).dump_python(
        value, mode="json", fallback=str
    )
    return _stable(dumped, paths)


def _model_state(model: Any, paths: dict[str, str]) -> dict[str, Any]:
    names = (
        "seed",
        "tokenizer",
        "tokenizer_mode",
        "trust_remote_code",
        "hf_overrides",
        "generation_config",
        "override_generation_config",
        "logits_processors",
        "logprobs_mode",
        "max_model_len",
        "model_impl",
        "quantization",
        "revision",
        "runner_type",
        "served_model_name",
        "enable_sleep_mode",
        "enable_prompt_embeds",
    )
    # KeyError-free on purpose only for names that an older or newer vLLM lacks: the
    # gateway's policy refuses a knob that it expects and does not find.
    return {
        name: _stable(getattr(model, name), paths)
        for name in names
        if hasattr(model, name)
    }


def serving_state(app: FastAPI) -> dict[str, Any]:
    """What changes answers, flat and stable over boots, and a digest over all else.

    `model` and `tokenizer` are `<model>` where they are the folder that was given.
    `config_sha256` is the text digest of the JSON (keys sorted, ASCII, compact) of the
    whole resolved configuration: engine, model file, sampling defaults, frontend flags
    and VLLM_* variables, without what differs per boot.
    """
    state, config, args = app.state, app.state.vllm_config, app.state.args
    model, parallel = config.model_config, config.parallel_config
    paths = _paths(config)
    return _model_state(model, paths) | {
        "model": _stable(model.model, paths),
        "architectures": list(model.architectures),
        "dtype": str(model.dtype).removeprefix("torch."),
        "kv_cache_dtype": str(config.cache_config.cache_dtype),
        "prefix_caching": config.cache_config.enable_prefix_caching,
        "default_sampling": _stable(model.get_diff_sampling_param(), paths),
        "hf_config_sha256": _sha256(
            _canonical(_stable(model.hf_config.to_dict(), paths))
        ),
        "load_format": str(config.load_config.load_format),
        "chat_template_sha256": _template_digest(state, tools=False),
        "tool_chat_template_sha256": _template_digest(state, tools=True),
        "default_chat_template_kwargs": _stable(
            args.default_chat_template_kwargs, paths
        ),
        "trust_request_chat_template": args.trust_request_chat_template,
        "tool_call_parser": args.tool_call_parser,
        "reasoning_parser": config.structured_outputs_config.reasoning_parser,
        "middleware": list(args.middleware),
        # Also what no flag names: SageMaker's start-up code and plug-ins add theirs.
        "installed_middleware": [_name(item.cls) for item in app.user_middleware],
        "lora": _none_or_stable(config.lora_config, paths),
        "lora_modules": _stable(args.lora_modules, paths),
        "speculative": _none_or_stable(config.speculative_config, paths),
        "kv_transfer": _none_or_stable(config.kv_transfer_config, paths),
        "weight_transfer": _none_or_stable(config.weight_transfer_config, paths),
        "tensor_parallel_size": parallel.tensor_parallel_size,
        "pipeline_parallel_size": parallel.pipeline_parallel_size,
        "data_parallel_size": parallel.data_parallel_size,
        "worker_cls": str(parallel.worker_cls),
        "worker_extension_cls": str(parallel.worker_extension_cls),
        "enforce_eager": model.enforce_eager,
        "plugins": os.environ.get("VLLM_PLUGINS"),
        "switches": {
            name: os.environ[name] for name in _SWITCHES if name in os.environ
        },
        "config_sha256": _config_digest(state),
    }
