"""What routing costs: CPU seconds of a step against the same step without routing.

    python bench/routing.py --out routing.json          # both models, a few minutes
    python bench/routing.py --models demo --rounds 5

Every way trains its own copy of the same model on the same batches. A round measures
all ways one after another, in an order that turns, and divides by the unrouted way of
the same round; a figure is the median over rounds, so what else the machine does hits
all ways alike. One thread. Prints Markdown tables, writes JSON with --out.
"""

import argparse
import hashlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback

from attest.training.batches import Example, Sampler
from attest.training.confinement import checksums, digests
from attest.training.constitution import parse_constitution
from attest.training.demo import constitution_bytes, corpus
from attest.training.demo.tiny import build_model, build_tokenizer
from attest.training.layout import read_layout
from attest.training.ledger import Ledger
from attest.training.mixed import MixedWindow, select_rows
from attest.training.router import Router
from attest.training.routing import Schedule, compile_schedule
from attest.training.stages import GovernedStage, Plan, adamw

CONSTITUTION = parse_constitution(constitution_bytes())
RATE = 1e-4
RARE = 1000  # between two hashed steps: none falls into a measurement

Step = Callable[[int], None]


def larger_model(seed: int) -> Any:
    """A Llama of 20 million parameters."""
    config = LlamaConfig(
        vocab_size=264,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=12,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=64,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=4,
    )
    torch.manual_seed(seed)
    return LlamaForCausalLM(config).to(torch.float32).train()


def demo_model(seed: int) -> Any:
    """The model of `make demo`."""
    return build_model(build_tokenizer(), seed=seed).train()


# Model, rows per principle and batch, tokens per row, steps per way and round.
MODELS = {"demo": (demo_model, 20, 48, 6), "20M": (larger_model, 6, 64, 1)}


class Work:
    """One model's batches and schedule, from which every way makes its own step."""

    def __init__(self, name: str, seed: int) -> None:
        self.make, rows, length, self.steps = MODELS[name]
        self.model_seed = seed
        self.schedule: Schedule = compile_schedule(
            CONSTITUTION, read_layout(self.make(seed))
        )
        self.names = list(self.schedule.routes)
        random = torch.Generator().manual_seed(seed)
        self.batches = []
        for _ in range(12):
            ids = torch.randint(8, 264, (rows, length), generator=random)
            self.batches.append({"input_ids": ids, "labels": ids.clone()})

    def model(self) -> Any:
        return self.make(self.model_seed)

    def batch(self, number: int) -> dict[str, torch.Tensor]:
        return self.batches[number % len(self.batches)]

    def principle(self, number: int) -> str:
        return self.names[number % len(self.names)]


def unrouted(work: Work, *, everything: bool = False) -> Step:
    """One optimizer over all blocks, or over the whole model."""
    model = work.model()
    named = dict(model.named_parameters())
    blocks = {n for route in work.schedule.routes.values() for n in route.tensors}
    for name, parameter in named.items():
        parameter.requires_grad_(everything or name in blocks)
    trained = [p for p in named.values() if p.requires_grad]
    optimizer = adamw(trained)

    def step(number: int) -> None:
        model(**work.batch(number)).loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = RATE
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def routed(work: Work, **dials: Any) -> Step:
    """The router, one principle per step, all of them in turn."""
    model = work.model()
    router = Router(model, work.schedule, adamw, **dials)

    def step(number: int) -> None:
        with router.route(work.principle(number)):
            model(**work.batch(number)).loss.backward()
            router.step(RATE)

    return step


def mixed(work: Work) -> Step:
    """Every batch holds rows of all principles, each in its own band."""
    model = work.model()
    router = Router(model, work.schedule, adamw, check_every=RARE)

    def step(number: int) -> None:
        batch, window = work.batch(number), MixedWindow(router)
        total, kinds = len(batch["input_ids"]), len(work.names)
        for offset, principle in enumerate(work.names):
            rows = list(range(offset, total, kinds))
            with window.part(principle):
                loss = model(**select_rows(batch, rows, total)).loss
                (loss * len(rows) / total).backward()
        window.step(RATE)

    return step


def whole_stage(work: Work) -> Step:
    """A stage as `Trainer.governed` runs it: sampler, hashes at every step, ledger."""
    model, length = work.model(), work.batches[0]["input_ids"].shape[1]
    rows = len(work.batches[0]["input_ids"])
    tokens = work.batches[0]["input_ids"].flatten().tolist()
    examples = [
        Example(f"{name}-{i}", name, (), tuple((tokens[i:] + tokens)[:length]))
        for name in (p.id for p in CONSTITUTION.principles)
        for i in range(32)
    ]
    router = Router(model, work.schedule, adamw)
    # The constitution asks for 12 anchors; where a batch has fewer rows, none join.
    plan = Plan("bench", 10**6, max(1, rows - 12), RATE)
    stage = GovernedStage(
        model, plan, Sampler(examples, seed=0), router, constitution=CONSTITUTION
    )
    ledger = Ledger.create(Path(tempfile.mkdtemp()) / "ledger.jsonl")
    return lambda _number: ledger.append(stage.advance()) and None


WAYS: dict[str, Callable[[Work], Step]] = {
    "unrouted, all blocks": unrouted,
    "unrouted, whole model": lambda work: unrouted(work, everything=True),
    "toggle, hashed every step": routed,
    f"toggle, hashed every {RARE}": lambda work: routed(work, check_every=RARE),
    f"clear, hashed every {RARE}": lambda work: routed(
        work, check_every=RARE, mechanism="clear"
    ),
    f"mixed, hashed every {RARE}": mixed,
    "whole stage with ledger": whole_stage,
}
BASELINE = "unrouted, all blocks"
# With its 12 anchors a batch of the larger model would have other rows than the rest.
ONLY_DEMO = {"whole stage with ledger"}


def measure(name: str, rounds: int, seed: int) -> dict[str, Any]:
    """CPU seconds of every way, round by round, and their ratios to the baseline."""
    work = Work(name, seed)
    ways = [way for way in WAYS if name == "demo" or way not in ONLY_DEMO]
    steps = {way: WAYS[way](work) for way in ways}
    # Three steps each: every band's optimizer state and buffers are there.
    for step in steps.values():
        for number in range(3):
            step(number)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    number = 3
    for round_ in range(rounds):
        turn = round_ % len(ways)
        for way in ways[turn:] + ways[:turn]:
            begun = time.process_time()
            for offset in range(work.steps * len(work.names)):
                steps[way](number + offset)
            seconds[way].append(time.process_time() - begun)
        number += work.steps * len(work.names)
        print(f"{name}: round {round_ + 1} of {rounds}", file=sys.stderr)
    per_step = work.steps * len(work.names)
    return {
        "parameters": sum(p.numel() for p in work.model().parameters()),
        "batch": list(work.batches[0]["input_ids"].shape),
        "steps_per_round": per_step,
        "ways": {
            way: {
                "cpu_seconds_per_step": [spent / per_step for spent in seconds[way]],
                "ratios": ratios(seconds[way], seconds[BASELINE]),
            }
            for way in ways
        },
        "checks": checks(work),
    }


def measure_trainers(rounds: int, seed: int) -> dict[str, Any]:
    """`train()` of TRL's SFTTrainer on the demo's rows, as it is and governed."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    warnings.simplefilter("ignore")
    from datasets import Dataset, disable_progress_bars  # noqa: PLC0415  # seconds, and only needed here
    from trl import SFTConfig, SFTTrainer  # noqa: PLC0415

    from attest.training.hf import Governance, Governed  # noqa: PLC0415

    disable_progress_bars()
    steps, seconds = 24, dict[str, list[float]]()
    rows = [
        {
            "id": row.id,
            "principle": row.principle,
            "prompt": row.messages(),
            "completion": [{"role": "assistant", "content": row.answer}],
        }
        for row in corpus("governed", "train")
    ]
    governed = type("GovernedSFT", (Governed, SFTTrainer), {})

    def seconds_of(way: str, folder: Path) -> float:
        model, tokenizer = demo_model(seed), build_tokenizer()
        extra = {}
        if way == "SFTTrainer":
            blocks = [n for n, _ in model.named_parameters() if ".layers." in n]
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name in blocks)
        else:
            every = RARE if "1000" in way else 1
            extra["governance"] = Governance(
                CONSTITUTION, folder / "ledger.jsonl", check_every=every
            )
        options = {
            "per_device_train_batch_size": 20,
            "max_steps": steps,
            "report_to": [],
            "save_strategy": "no",
            "use_cpu": True,
            "bf16": False,
            "disable_tqdm": True,
            "logging_strategy": "no",
            "gradient_checkpointing": False,
        }
        trainer = (governed if extra else SFTTrainer)(
            model=model,
            args=SFTConfig(str(folder / "out"), **options),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            **extra,
        )
        trainer.pop_callback(PrinterCallback)
        begun = time.process_time()
        trainer.train()
        return time.process_time() - begun

    ways = ["SFTTrainer", "governed, hashed every step", f"governed, every {RARE}"]
    for round_ in range(rounds + 1):  # the first one warms up and does not count
        for way in ways[round_ % 3 :] + ways[: round_ % 3]:
            with tempfile.TemporaryDirectory() as folder:
                spent = seconds_of(way, Path(folder))
            if round_:
                seconds.setdefault(way, []).append(spent)
        print(f"trainers: round {round_} of {rounds}", file=sys.stderr)
    return {
        "steps_per_round": steps,
        "ways": {
            way: {
                "cpu_seconds_per_step": [spent / steps for spent in seconds[way]],
                "ratios": ratios(seconds[way], seconds["SFTTrainer"]),
            }
            for way in ways
        },
    }


def ratios(mine: list[float], baseline: list[float]) -> list[float]:
    return [a / b for a, b in zip(mine, baseline, strict=True)]


def checks(work: Work) -> dict[str, float]:
    """CPU milliseconds to measure the whole model once, each way; least of five."""
    tensors = dict(work.model().named_parameters())
    found = {"megabytes": sum(p.numel() * p.element_size() for p in tensors.values())}
    found["megabytes"] /= 1e6
    for name, method in (("sha256_ms", digests), ("sum64_ms", checksums)):
        times = []
        for _ in range(5):
            begun = time.process_time()
            method(tensors)
            times.append(time.process_time() - begun)
        found[name] = 1000 * min(times)
    return found


def table(found: dict[str, Any]) -> str:
    """One model's figures in Markdown."""
    lines = [
        "| way | CPU ms per step | ratio to unrouted | middle half | all |",
        "|---|---|---|---|---|",
    ]
    for way, figures in found["ways"].items():
        r = sorted(figures["ratios"])
        quarters = statistics.quantiles(r, n=4) if len(r) > 1 else [r[0]] * 3
        spent = 1000 * statistics.median(figures["cpu_seconds_per_step"])
        lines.append(
            f"| {way} | {spent:.1f} | {statistics.median(r):.2f} | "
            f"{quarters[0]:.2f} to {quarters[2]:.2f} | {r[0]:.2f} to {r[-1]:.2f} |"
        )
    if "checks" in found:
        c = found["checks"]
        lines.append("")
        lines.append(
            f"Whole model, {c['megabytes']:.1f} MB: SHA-256 {c['sha256_ms']:.1f} ms, "
            f"checksum {c['sum64_ms']:.2f} ms."
        )
    return "\n".join(lines)


def setting(seed: int) -> dict[str, Any]:
    """Where and when it was measured."""
    code = Path(__file__).read_bytes()
    return {
        "bench": hashlib.sha256(code).hexdigest(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg(),
        "seed": seed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    begun = setting(options.seed)
    found = {}
    for name in options.models:
        found[name] = measure(name, options.rounds, options.seed)
        shape = " x ".join(map(str, found[name]["batch"]))
        print(f"\n{name}: {found[name]['parameters']:,} parameters, batch {shape}\n")
        print(table(found[name]))
    found["trainers"] = measure_trainers(max(2, options.rounds // 2), options.seed)
    print("\nTRL's SFTTrainer, the demo's model and rows, 20 rows a step\n")
    print(table(found["trainers"]))
    load = [round(value, 1) for value in os.getloadavg()]
    print(f"\nLoad at the end {load} on {os.cpu_count()} CPUs, seed {options.seed}.")
    if options.out is not None:
        document = {"setting": begun, "load_at_end": load, "models": found}
        options.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
