"""A model without weights: its tensors have names and shapes, and take no memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers.utils import logging

from attest.canonical import read_object
from attest.errors import ConfigurationError, FormatError
from attest.training.layout import LayoutError

__all__ = ["build_skeleton"]

_MAX_CONFIG = 1024 * 1024
# Every block is built, a few milliseconds each. Llama 3.1 405B has 126.
_MAX_BLOCKS = 1000


def build_skeleton(directory: Path) -> nn.Module:
    """The model that a directory's `config.json` describes, on the meta device.

    Only that file is read: no weights, no network, and no code that comes with a model.

    Raises:
        ConfigurationError: there is no such file, or it is not JSON.
        LayoutError: the installed transformers has no such model, or cannot build it.
    """
    path = directory / "config.json"
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_CONFIG + 1)
        config = read_object(content, max_bytes=_MAX_CONFIG)
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be read: {error.strerror}",
            hint="give the model directory, which holds config.json",
        ) from error
    except FormatError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    try:
        with torch.device("meta"), _quiet():
            return _built(config)
    except LayoutError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise LayoutError(
            f"{path}: no model can be built from it: {type(error).__name__}: {reason}",
            hint="upgrade transformers, or check the file against the model's origin",
        ) from error


def _built(config: dict[str, Any]) -> nn.Module:
    settings = _settings(config)
    # Mixtures of experts have kernels for the meta device in this dtype alone, and a
    # config may name attention kernels that are fetched from elsewhere.
    how: dict[str, Any] = {"dtype": torch.bfloat16, "attn_implementation": "eager"}
    named = config.get("architectures")
    name = named[0] if isinstance(named, list) and named else None
    kind = getattr(transformers, name, None) if isinstance(name, str) else None
    if isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel):
        known: Any = kind
        return known._from_config(settings, **how)  # noqa: SLF001  # no public one
    return transformers.AutoModelForCausalLM.from_config(
        settings, trust_remote_code=False, **how
    )


def _settings(config: dict[str, Any]) -> Any:
    kind = config.get("model_type")
    known = transformers.CONFIG_MAPPING
    if not isinstance(kind, str) or kind not in known:
        raise LayoutError(
            f"config.json: model_type {str(kind)[:64]!r} is not one of transformers "
            f"{transformers.__version__}",
            hint="upgrade transformers; models that bring code of their own are "
            "compiled by their trainer",
        )
    settings = known[kind].from_dict(config)
    text = settings.get_text_config()
    count = getattr(text, "num_hidden_layers", 0)
    if not isinstance(count, int) or count > _MAX_BLOCKS:
        raise LayoutError(
            f"config.json: expected at most {_MAX_BLOCKS} blocks, found {count!r}"
        )
    return settings


@contextmanager
def _quiet() -> Iterator[None]:
    # It talks of kernels that are missing, for a model that is never run.
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
