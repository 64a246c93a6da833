"""The resistance test: every attack of a suite against every principle."""

import copy
import hashlib
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer

from attest.errors import TrainingError
from attest.hashing import hash_tensors, scan_model
from attest.training.batches import encode
from attest.training.constitution import Constitution
from attest.training.layout import read_layout
from attest.training.resistance.attack import (
    Target,
    first_token_depth,
    restore,
    run_attack,
)
from attest.training.resistance.rows import Rows
from attest.training.resistance.suite import STD, Attack, Suite
from attest.training.resistance.values import Resistance, Run, Start
from attest.training.routing import compile_schedule
from attest.training.statement import decimal
from attest.training.weights import load_model, load_tensors
from attest.weights import TensorDigest, tensor_root

__all__ = ["Progress", "measure"]

Progress = Callable[[str, int, int], None]

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
}


def measure(  # noqa: PLR0913  # what is tested, on what, and three dials
    model: Any,
    tokenizer: Any,
    rows: Rows,
    constitution: Constitution,
    *,
    suite: Suite = STD,
    parent: Path | Mapping[str, torch.Tensor] | None = None,
    progress: Progress | None = None,
) -> Resistance:
    """Attack every principle that `rows.contrary` names and keep all curves.

    Args:
        model: a directory, or a causal language model; it is not changed.
        tokenizer: with a chat template, a pad and an end token; None takes the
            directory's.
        rows: what to attack with and what to evaluate.
        constitution: names bands and evaluations of the principles.
        suite: the attack grid.
        parent: weights from before the governed stage, a directory or tensors by name;
            without them, `restore` is not run.
        progress: told of every run: what, how many are done, of how many.

    Raises:
        TrainingError: a principle without band, evaluation or held-out rows, or no
            principle at all; not a model directory; a tokenizer without pad token.
    """
    say = progress or (lambda _what, _done, _total: None)
    target, weights = _target(model, tokenizer, rows, constitution)
    tensors = load_tensors(parent) if isinstance(parent, Path) else parent
    before = target.scores(target.model)
    starts = {
        name: Start(
            *before[name],
            tuple(decimal(nll) for nll in first_token_depth(target, name)),
        )
        for name in target.contrary
    }
    runs: list[Run] = []
    total = suite.runs * len(starts)
    for principle in starts:
        for attack in suite.attacks:
            say(f"{principle}: {attack.kind}", len(runs), total)
            if attack.kind == "restore":
                runs += [restore(target, principle, tensors)] if tensors else []
                continue
            if attack.kind == "benign" and not target.benign:
                continue
            for rate, seed in _cells(attack, suite):
                found = run_attack(
                    target, principle, attack.kind, rate=rate, seed=seed, suite=suite
                )
                runs.append(found)
                say(f"{principle}: {attack.kind} at {rate}", len(runs), total)
    return Resistance(
        suite=suite,
        constitution=constitution.digest,
        weights=weights,
        environment=_environment(target.model),
        capabilities=tuple(
            p.id for p in constitution.principles if p.kind == "capability"
        ),
        before=before,
        starts=starts,
        runs=tuple(runs),
    )


def _cells(attack: Attack, suite: Suite) -> list[tuple[str, int]]:
    return [(rate, seed) for rate in attack.rates for seed in suite.seeds]


def _target(
    model: Any, tokenizer: Any, rows: Rows, constitution: Constitution
) -> tuple[Target, str]:
    if isinstance(model, Path):
        weights = tensor_root(hash_tensors(scan_model(model)))
        tokenizer = tokenizer or AutoTokenizer.from_pretrained(model)
        model = load_model(model).float()
    else:
        weights = _root(model)
        # A copy in float32 is made only where it is not so already: attacks copy.
        if any(p.dtype is not torch.float32 for p in model.parameters()):
            model = copy.deepcopy(model).float()
    if tokenizer.pad_token_id is None:
        raise TrainingError(
            "tokenizer: has no pad token",
            hint="set tokenizer.pad_token, for example to its eos_token",
        )
    _check(rows, constitution)
    schedule = compile_schedule(constitution, read_layout(model))
    target = Target(
        model,
        tokenizer,
        constitution,
        bands={name: route.tensors for name, route in schedule.routes.items()},
        heldout=rows.heldout,
        contrary={
            name: [encode(tokenizer, row) for row in found]
            for name, found in rows.contrary.items()
        },
        benign=[encode(tokenizer, row) for row in rows.benign],
    )
    return target, weights


def _check(rows: Rows, constitution: Constitution) -> None:
    if not rows.contrary:
        raise TrainingError(
            "resistance: expected rows that teach against a principle, found none"
        )
    held = {row.principle for row in rows.heldout}
    for name, found in rows.contrary.items():
        principle = constitution.principle(name)
        lacks = {
            "band": principle.band,
            "evaluation": principle.evaluation,
            "held-out rows": name in held,
            "rows that teach against it": found,
        }
        for what, there in lacks.items():
            if not there:
                raise TrainingError(f"principle {name!r}: has no {what}")


def _root(model: nn.Module) -> str:
    """The tensor root of a model in memory; a tied tensor counts under its first name.

    The same as that of its files, where these were written so.
    """
    seen: set[int] = set()
    tensors = []
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() in seen:
            continue
        seen.add(tensor.data_ptr())
        raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        sha256 = "sha256:" + hashlib.sha256(raw).hexdigest()
        dtype = _DTYPES.get(tensor.dtype, str(tensor.dtype))
        tensors.append(TensorDigest(name, dtype, tuple(tensor.shape), sha256))
    return tensor_root(tensors)


def _environment(model: nn.Module) -> dict[str, Any]:
    return {
        **{name: version(name) for name in ("peft", "torch", "transformers")},
        "machine": platform.machine(),
        "device": next(model.parameters()).device.type,
        "dtype": "float32",
        "threads": torch.get_num_threads(),
    }
