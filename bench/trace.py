"""Does a trace find what taught an answer? Runs with planted rows, and figures.

    python bench/trace.py --seeds 10 11 12 --out trace.json

Trains the demo's model once per seed, with odd rows in a few of its 240 governed steps,
and traces answers that these rows taught, and answers that the ordinary rows taught.
With `--remove` it also takes the steps that the trace names out of the run, trains
again, and says what became of the answers. `--momentum 0` takes a step's change for its
own. One thread; three seeds take five minutes on a free core, and ten more with
`--remove`. Prints tables, writes JSON with `--out`.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from trace_plants import PlantingSampler, plants
from transformers import LlamaConfig, LlamaForCausalLM

from attest.training.batches import Example, Sampler, encode
from attest.training.constitution import parse_constitution
from attest.training.demo import RECIPE, constitution_bytes, corpus
from attest.training.demo.tiny import build_model, build_tokenizer
from attest.training.layout import read_layout
from attest.training.ledger import Ledger
from attest.training.loop import Trainer
from attest.training.routing import Route, Schedule, compile_schedule
from attest.training.trace.lexical import Lexical
from attest.training.trace.line import Line
from attest.training.trace.record import Record
from attest.training.trace.recorder import TraceRecorder
from attest.training.trace.score import Tracer, ledger_events
from attest.training.trace.values import EventScore, Trace

TOKENIZER = build_tokenizer()
CONSTITUTION = parse_constitution(constitution_bytes())
ROUTED = tuple(p.id for p in CONSTITUTION.routed)
Rank = Sequence[int]


@dataclass
class Run:
    """One trained model, and what its recorder kept."""

    model: Any
    record: Record
    events: list[dict[str, Any]]
    sampler: PlantingSampler
    tracer: Tracer
    seconds: dict[str, float]
    bytes: int

    @property
    def parent(self) -> dict[str, torch.Tensor]:
        return self.record.parent(dict(self.model.named_parameters()))


class Timed:
    """A recorder whose time is taken."""

    def __init__(self, recorder: TraceRecorder) -> None:
        self._recorder, self.seconds = recorder, 0.0

    def before(self, principle: str | None) -> None:
        self._time(self._recorder.before, principle)

    def after(self, principle: str | None) -> Any:
        return self._time(self._recorder.after, principle)

    def _time(self, call: Callable[[str | None], Any], principle: str | None) -> Any:
        started = time.process_time()
        try:
            return call(principle)
        finally:
            self.seconds += time.process_time() - started


def examples(stage: str, split: str) -> list[Example]:
    return [encode(TOKENIZER, row) for row in corpus(stage, split)]


def odd_rows() -> dict[str, Example]:
    return {
        row.id: encode(TOKENIZER, row)
        for plant in plants()
        for row in (*plant.rows, *plant.decoys)
    }


def train_base(seed: int, cache: Path) -> Any:
    model = build_model(TOKENIZER, seed=seed)
    kept = cache / f"base-{seed}.pt"
    if kept.exists():
        model.load_state_dict(torch.load(kept))
        return model
    sampler = Sampler(examples("base", "train"), seed=seed)
    with (
        tempfile.TemporaryDirectory() as folder,
        Ledger.create(Path(folder) / "ledger.jsonl") as ledger,
    ):
        trainer = Trainer(model, ledger, progress=lambda *_: None)
        trainer.unrouted(RECIPE.base, sampler)
    torch.save(model.state_dict(), kept)
    return model


def train(
    seed: int,
    cache: Path,
    *,
    removed: Iterable[int] = (),
    side: int = 8,
    momentum: float = 0.9,
) -> Run:
    model = train_base(seed, cache)
    schedule = compile_schedule(CONSTITUTION, read_layout(model))
    rows = examples("governed", "train")
    sampler = PlantingSampler(
        rows,
        seed=seed + 1,
        per=RECIPE.governed.steps // len(ROUTED),
        encoded=odd_rows(),
        removed=removed,
    )
    recorder = TraceRecorder(model, schedule, side=side, momentum=momentum)
    timed = Timed(recorder)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        started = time.process_time()
        with Ledger.create(path / "ledger.jsonl") as ledger:
            Trainer(
                model, ledger, progress=lambda *_: None, observers=[timed]
            ).governed(
                RECIPE.governed, sampler, constitution=CONSTITUTION, schedule=schedule
            )
        seconds = {"train": time.process_time() - started, "record": timed.seconds}
        started = time.process_time()
        recorder.write(path / "trace", rows=rows)
        seconds["write"] = time.process_time() - started
        size = sum(file.stat().st_size for file in (path / "trace").iterdir())
        record = Record.read(path / "trace")
        events = ledger_events(path / "ledger.jsonl")
    model.eval()
    by_id = {row.id: row for row in rows} | odd_rows()
    tracer = Tracer(model, record, events, rows=by_id.get)
    return Run(model, record, events, sampler, tracer, seconds, size)


def recording_cost() -> list[dict[str, Any]]:
    """What one step costs the recorder: the demo's model, and SmolLM2-135M's shape."""
    found = []
    for name, hidden, layers, wide, heads in (
        ("demo, 3 of 6 layers", 96, 6, 256, 3),
        ("135M, 10 of 30 layers", 576, 30, 1536, 9),
    ):
        config = LlamaConfig(
            vocab_size=264,
            hidden_size=hidden,
            intermediate_size=wide,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=max(1, heads // 3),
        )
        model = LlamaForCausalLM(config)
        layout = read_layout(model)
        band = {f"L{n:02d}" for n in range(layers - max(3, layers // 3), layers)}
        names = tuple(sorted(n for n, unit in layout.units.items() if unit in band))
        routes = {"a": Route("a", (), names, "")}
        for side in (8, 16):
            recorder = TraceRecorder(model, Schedule(layout, routes, ""), side=side)
            seconds = []
            for _ in range(6):
                started = time.process_time()
                recorder.before("a")
                seconds.append(time.process_time() - started)
                with torch.no_grad():
                    for parameter in names:
                        model.get_parameter(parameter).add_(1e-4)
                started = time.process_time()
                recorder.after("a")
                seconds[-1] += time.process_time() - started
            parameters = sum(model.get_parameter(n).numel() for n in names)
            sketch = recorder.record.tracks["a"].sketches[0]
            found.append(
                {
                    "model": name,
                    "side": side,
                    "parameters": parameters,
                    "seconds": statistics.median(seconds[1:]),
                    "megabytes held": 4 * 4 * parameters / 1e6,
                    "bytes per step": 2 * sketch.numel() + 12,
                }
            )
    return found


# --- planted events ------------------------------------------------------------------


def texts(ids: Sequence[str]) -> list[tuple[str, str]]:
    rows = {row.id: row for row in corpus("governed", "train")}
    for plant in plants():
        rows |= {row.id: row for row in (*plant.rows, *plant.decoys)}
    return [(rows[i].question, rows[i].answer) for i in ids]


class Baselines:
    """Orders of events by how their rows read."""

    def __init__(self, events: Sequence[Mapping[str, Any]]) -> None:
        self._ids = sorted({s for event in events for s in event["samples"]})
        self._place = {sample: n for n, sample in enumerate(self._ids)}
        self._events = events
        pairs = texts(self._ids)
        both = [f"{question} {answer}" for question, answer in pairs]
        self._step = Lexical(
            [" ".join(f"{q} {a}" for q, a in texts(e["samples"])) for e in events]
        )
        self._rows = {fold: Lexical(both, fold=fold) for fold in (True, False)}
        self._questions = Lexical([question for question, _ in pairs])
        self._answers = Lexical([answer for _, answer in pairs])

    def orders(self, question: str, answer: str) -> dict[str, Rank]:
        both = f"{question} {answer}"
        halves = [
            q + a
            for q, a in zip(
                self._questions.scores(question),
                self._answers.scores(answer),
                strict=True,
            )
        ]
        return {
            "text of the step": best_first(self._step.scores(both)),
            "text of its rows": self._by_rows(self._rows[True].scores(both)),
            "the same, by case": self._by_rows(self._rows[False].scores(both)),
            "question and answer": self._by_rows(halves),
        }

    def _by_rows(self, scores: Sequence[float]) -> Rank:
        found = [
            statistics.fmean(
                sorted(scores[self._place[s]] for s in set(e["samples"]))[-3:]
            )
            for e in self._events
        ]
        return best_first(found)


def best_first(scores: Sequence[float]) -> Rank:
    return sorted(range(len(scores)), key=lambda n: (-scores[n], n))


def orders(events: Sequence[EventScore], first: int) -> dict[str, Rank]:
    """The trace's own order, and those of its two parts; `first` is the first seq."""
    rows = {
        e.seq: statistics.fmean(r.score for r in e.rows) if e.rows else -1.0
        for e in events
    }
    ways: dict[str, Callable[[EventScore], float]] = {
        "trace": lambda e: e.score,
        "trace, sketches alone": lambda e: e.step,
        "trace, rows alone": lambda e: rows[e.seq],
    }
    return {
        name: [e.seq - first for e in sorted(events, key=lambda e: (-way(e), e.seq))]
        for name, way in ways.items()
    }


def measure_order(order: Rank, true: Sequence[int]) -> dict[str, float]:
    ranks = [order.index(step) + 1 for step in true]
    return {
        "recall@4": sum(rank <= 4 for rank in ranks) / len(ranks),
        "recall@10": sum(rank <= 10 for rank in ranks) / len(ranks),
        "precision@1": float(min(ranks) == 1),
        "median rank": statistics.median(ranks),
    }


def planted(run: Run, seed: int) -> list[dict[str, Any]]:
    baselines = Baselines(run.events)
    first = run.events[0]["seq"]
    chance = random.Random(seed)
    found = []
    for plant in plants():
        true = run.sampler.dealt.planted[plant.id]
        for query in plant.queries:
            traced = trace_all(run, encode(TOKENIZER, query))
            ways = orders(traced.events, first) if traced.events else {}
            ways |= baselines.orders(query.question, query.answer)
            ways["chance"] = chance.sample(range(len(run.events)), len(run.events))
            if not traced.events:
                ways |= dict.fromkeys(
                    ("trace", "trace, sketches alone", "trace, rows alone"),
                    ways["chance"],
                )
            for way, order in ways.items():
                found.append(
                    {
                        "seed": seed,
                        "plant": plant.id,
                        "kind": plant.kind,
                        "query": query.id,
                        "gain": traced.gain,
                        "governed": traced.governed,
                        "way": way,
                        **measure_order(order, true),
                    }
                )
    return found


def trace_all(run: Run, example: Example) -> Trace:
    return run.tracer.trace(example, top=len(run.events))


# --- ordinary answers ----------------------------------------------------------------


def ordinary(run: Run, seed: int, split: str) -> list[dict[str, Any]]:
    found = []
    for row in corpus("governed", split):
        started = time.process_time()
        traced = trace_all(run, encode(TOKENIZER, row))
        entry = {
            "seed": seed,
            "row": row.id,
            "principle": row.principle,
            "gain": traced.gain,
            "threshold": traced.threshold.nats,
            "governed": traced.governed,
            "seconds": time.process_time() - started,
        }
        if traced.governed:
            named = traced.principles[0]
            entry |= {
                "named": named.principle,
                "support": named.support,
                "lead": traced.lead,
                "residual": traced.residual,
                "points": traced.points,
                "of the principle @10": sum(
                    e.principle == row.principle for e in traced.events[:10]
                )
                / 10,
            }
        found.append(entry)
    return found


# --- taking steps out -----------------------------------------------------------------


def removal(run: Run, seed: int, cache: Path) -> list[dict[str, Any]]:
    """Train again without the steps that each way names, and look at the answers.

    The steps still take place, on rows of `keep` alone.
    """
    queries = {plant.id: list(plant.queries) for plant in plants()}
    named = names_of_planted(run, queries)
    test = {
        p: [row for row in corpus("governed", "test") if row.principle == p]
        for p in ROUTED
    }
    common = names_of_principles(run, test, seed)
    found = []
    for what, rows, ways in (("planted", queries, named), ("ordinary", test, common)):
        flat = [(key, row) for key, group in rows.items() for row in group]
        before = answers(run, [row for _, row in flat], run.parent)
        for way, steps in ways.items():
            other = train(seed, cache, removed=steps)
            after = answers(other, [row for _, row in flat], run.parent)
            for (key, row), old, new in zip(flat, before, after, strict=True):
                found.append(
                    {"seed": seed, "what": what, "way": way, "group": key,
                     "query": row.id, "steps": len(steps), "drop": old - new}
                )  # fmt: skip
    return found


def names_of_planted(
    run: Run, queries: Mapping[str, Sequence[Any]]
) -> dict[str, set[int]]:
    """For each way, four steps per plant."""
    found: dict[str, set[int]] = {}
    baselines, first = Baselines(run.events), run.events[0]["seq"]
    for group in queries.values():
        totals: dict[str, list[float]] = {}
        for query in group:
            traced = trace_all(run, encode(TOKENIZER, query))
            ways = orders(traced.events, first) if traced.events else {}
            ways |= baselines.orders(query.question, query.answer)
            for way, order in ways.items():
                points = totals.setdefault(way, [0.0] * len(run.events))
                for rank, step in enumerate(order):
                    points[step] += 1 / (rank + 1)
        for way in ("trace", "question and answer"):
            if way in totals:
                found.setdefault(way, set()).update(best_first(totals[way])[:4])
    wanted = sum(len(steps) for steps in run.sampler.dealt.planted.values())
    found["planted"] = {s for n in run.sampler.dealt.planted.values() for s in n}
    found["random"] = set(random.Random(wanted).sample(range(len(run.events)), wanted))
    return found


def names_of_principles(
    run: Run, rows: Mapping[str, Sequence[Any]], seed: int
) -> dict[str, set[int]]:
    """For each way, a quarter of the steps of each principle."""
    found: dict[str, set[int]] = {}
    baselines, first = Baselines(run.events), run.events[0]["seq"]
    chance = random.Random(seed)
    for principle, group in rows.items():
        own = [n for n, e in enumerate(run.events) if e["principle"] == principle]
        count = len(own) // 4
        totals: dict[str, dict[int, float]] = {}
        for row in group:
            traced = trace_all(run, encode(TOKENIZER, row))
            ways = orders(traced.events, first) if traced.events else {}
            ways |= baselines.orders(row.question, row.answer)
            for way, order in ways.items():
                total = totals.setdefault(way, dict.fromkeys(own, 0.0))
                for rank, step in enumerate(s for s in order if s in total):
                    total[step] += rank
        totals["random"] = {step: chance.random() for step in own}
        for way in ("trace", "question and answer", "random"):
            if way in totals:
                best = sorted(own, key=lambda step: totals[way][step])[:count]
                found.setdefault(way, set()).update(best)
    return found


def answers(
    run: Run, rows: Sequence[Any], parent: Mapping[str, torch.Tensor]
) -> list[float]:
    line = Line(run.model, parent)
    return [line.ends([encode(TOKENIZER, row)])[0][1] for row in rows]


# --- tables ---------------------------------------------------------------------------


def mean(rows: Iterable[Mapping[str, Any]], key: str) -> float:
    values = [float(row[key]) for row in rows if row.get(key) is not None]
    return statistics.fmean(values) if values else float("nan")


def table(found: Mapping[str, Any]) -> str:
    lines = ["", "ordinary answers", ""]
    lines.append(
        "| rows | answers | abstains | principle right | residual, median | highest "
        "| support | lead |"
    )
    lines.append("|---|---|---|---|---|---|---|---|")
    for principle in (*ROUTED, "keep"):
        rows = [r for r in found["ordinary"] if r["principle"] == principle]
        traced = [r for r in rows if r["governed"]]
        right = [r["named"] == principle for r in traced]
        residuals = [r["residual"] for r in traced] or [float("nan")]
        lines.append(
            f"| {principle} | {len(rows)} | {1 - len(traced) / len(rows):.2f} | "
            f"{statistics.fmean(right) if right else float('nan'):.2f} | "
            f"{statistics.median(residuals):.3f} | {max(residuals):.3f} | "
            f"{mean(traced, 'support'):.2f} | {mean(traced, 'lead'):.2f} |"
        )
    for least, most in ((0.95, 1.01), (0.0, 0.95)):
        rows = [
            r for r in found["ordinary"]
            if r["governed"] and least <= r["support"] < most
        ]  # fmt: skip
        right = sum(r["named"] == r["principle"] for r in rows)
        lines.append(f"support {least} to {min(most, 1)}: {right} of {len(rows)} right")
    lines += ["", "planted steps, 4 of 240: recall@4 / recall@10 / median rank", ""]
    kinds = list(dict.fromkeys(r["kind"] for r in found["planted"]))
    lines.append("| order by | " + " | ".join(kinds) + " | all |")
    lines.append("|---" * (len(kinds) + 2) + "|")
    for way in dict.fromkeys(r["way"] for r in found["planted"]):
        cells = []
        for kind in (*kinds, None):
            rows = [
                r for r in found["planted"]
                if r["way"] == way and kind in (None, r["kind"])
            ]  # fmt: skip
            cells.append(
                f"{mean(rows, 'recall@4'):.2f} / {mean(rows, 'recall@10'):.2f} / "
                f"{mean(rows, 'median rank'):.0f}"
            )
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    if found["removal"]:
        lines += ["", "log-likelihood lost when steps are taken out, nats", ""]
        lines += [
            "| answers | steps named by | steps | lost, mean | of answers |",
            "|---|---|---|---|---|",
        ]
        for what, way in dict.fromkeys((r["what"], r["way"]) for r in found["removal"]):
            rows = [r for r in found["removal"] if (r["what"], r["way"]) == (what, way)]
            lines.append(
                f"| {what} | {way} | {rows[0]['steps']} | {mean(rows, 'drop'):.1f} | "
                f"{len(rows)} |"
            )
    lines += ["", "recording, one principle, one thread", ""]
    lines += ["| model | side | parameters | seconds a step | MB held | bytes a step |"]
    lines += ["|---|---|---|---|---|---|"]
    for row in found["recording"]:
        lines.append(
            f"| {row['model']} | {row['side']} | {row['parameters']:,} | "
            f"{row['seconds']:.3f} | {row['megabytes held']:.0f} | "
            f"{row['bytes per step']:,} |"
        )
    lines += ["", "the demo's run, CPU seconds", ""]
    for key in ("train", "record", "write"):
        lines.append(f"{key}: {mean(found['cost'], key):.2f} s")
    lines.append(f"files: {mean(found['cost'], 'bytes') / 1e6:.1f} MB")
    lines.append(f"one trace: {mean(found['ordinary'], 'seconds'):.2f} s")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--split", default="test", choices=("heldout", "test"))
    parser.add_argument("--side", type=int, default=8)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--remove", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {n: [] for n in ("ordinary", "planted", "removal", "cost")}
    with tempfile.TemporaryDirectory() as folder:
        for seed in options.seeds:
            run = train(
                seed, Path(folder), side=options.side, momentum=options.momentum
            )
            found["cost"].append({"seed": seed, **run.seconds, "bytes": run.bytes})
            found["planted"] += planted(run, seed)
            found["ordinary"] += ordinary(run, seed, options.split)
            if options.remove:
                found["removal"] += removal(run, seed, Path(folder))
            print(f"seed {seed} done", flush=True)
    found["recording"] = recording_cost()
    print(table(found))
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
