"""Are profiles true, what do they cost, and does a diagnosis find what was damaged?

    python bench/profiles.py --out profiles.json     # seeds 7 8 9: docs/profile.md
    python bench/profiles.py --seeds 7 --parts recipe

On the demo's tiny model, with one thread. Parts: `recipe` profiles the demo's governed
stage, and the same rows unrouted; `sampling` compares ways to integrate along the path;
`planted` trains each principle in one known layer; `diagnosis` damages one known layer,
or plants damaging batches in a later stage. About ten minutes of one free core per
seed. Prints tables, writes JSON with --out. Named in the plural, since a `profile.py`
here would stand before the one of Python's library.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from attest.training.batches import Example, Sampler, encode
from attest.training.constitution import Constitution, parse_constitution
from attest.training.demo import RECIPE, constitution_bytes, corpus
from attest.training.demo.tiny import build_model, build_tokenizer
from attest.training.layout import read_layout
from attest.training.loop import Plan, Trainer
from attest.training.profile.blame import rank_steps
from attest.training.profile.diagnose import diagnose
from attest.training.profile.lca import ProfileRecorder
from attest.training.profile.measured import Measurement
from attest.training.profile.patching import exchange_units, snapshot
from attest.training.profile.probe import Probe, make_probe, make_probes
from attest.training.profile.probe_loss import (
    chunk_gradients,
    probe_loss,
    put,
    undisturbed,
)
from attest.training.routing import Schedule, compile_schedule

TOKENIZER = build_tokenizer()
PAD = int(TOKENIZER.pad_token_id)
CONSTITUTION = parse_constitution(constitution_bytes())
ROUTED = tuple(p.id for p in CONSTITUTION.routed)
LAYERS = 6


def examples(stage: Any, split: Any, principles: Sequence[str] = ()) -> list[Example]:
    rows = corpus(stage, split)
    return [
        encode(TOKENIZER, row)
        for row in rows
        if not principles or row.principle in principles
    ]


class Records:
    """A ledger in memory."""

    def __init__(self) -> None:
        self.kept: list[dict[str, Any]] = []

    def append(self, record: Mapping[str, Any]) -> int:
        self.kept.append({**record, "seq": len(self.kept)})
        return len(self.kept) - 1

    @property
    def steps(self) -> list[dict[str, Any]]:
        return [record for record in self.kept if record["kind"] == "step"]


class Timed:
    """An observer and the CPU seconds that it takes, by step."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.ends, self.spent = inner, [time.process_time()], [0.0]

    def before(self, principle: str | None) -> None:
        began = time.process_time()
        self.inner.before(principle)
        self.spent.append(time.process_time() - began)

    def after(self, principle: str | None) -> Mapping[str, Any]:
        began = time.process_time()
        notes = self.inner.after(principle)
        self.ends.append(time.process_time())
        self.spent[-1] += self.ends[-1] - began
        return notes

    def ratio(self, first: int = 0) -> float:
        """Time with it over time without it, from a step on."""
        whole = self.ends[-1] - self.ends[first]
        return whole / (whole - sum(self.spent[first + 1 :]))


class Trapezoid:
    """What training.md tried: gradients at both ends of every n-th step's line."""

    def __init__(self, model: Any, probes: Sequence[Probe], every: int) -> None:
        self._model, self._probes, self._every = model, probes, every
        self._count = 0
        self._last: Any = None
        self.total = {p.principle: 0.0 for p in probes}

    def before(self, _principle: str | None) -> None:
        if self._last is None:
            self._last = self._look()
            self.begin = self._losses()

    def after(self, _principle: str | None) -> Mapping[str, Any]:
        self._count += 1
        if self._count % self._every == 0:
            self._close()
        return {}

    def residuals(self) -> dict[str, float]:
        if self._count % self._every:
            self._close()
        end = self._losses()
        drops = {name: self.begin[name] - end[name] for name in end}
        return {n: abs(self.total[n] - drop) / drop for n, drop in drops.items()}

    def _losses(self) -> dict[str, float]:
        with undisturbed(self._model):
            return {p.principle: probe_loss(self._model, p) for p in self._probes}

    def _look(self) -> tuple[Any, Any]:
        parameters = dict(self._model.named_parameters())
        found = {}
        with undisturbed(self._model):
            self._model.requires_grad_(requires_grad=True)
            for probe in self._probes:
                chunks = list(chunk_gradients(self._model, probe, parameters))
                found[probe.principle] = {
                    name: sum(
                        chunk[name] * weight / sum(probe.weights)
                        for chunk, weight in zip(chunks, probe.weights, strict=True)
                    )
                    for name in parameters
                }
        return snapshot(self._model), found

    def _close(self) -> None:
        (before, old), (after, new) = self._last, self._look()
        for name in self.total:
            for tensor, value in after.items():
                mean = (old[name][tensor] + new[name][tensor]) / 2
                self.total[name] -= float((mean * (value - before[tensor])).sum())
        self._last = (after, new)


class World:
    """The demo's model after its base stage."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.model = build_model(TOKENIZER, seed=seed)
        self.layout = read_layout(self.model)
        base = Sampler(examples("base", "train"), seed=seed)
        self.trainer().unrouted(RECIPE.base, base)
        self.parent = snapshot(self.model)
        self.schedule = compile_schedule(CONSTITUTION, self.layout)

    def trainer(self, *observers: Any, ledger: Any = None) -> Trainer:
        ledger = Records() if ledger is None else ledger
        say = lambda *_: None  # noqa: E731
        return Trainer(self.model, ledger, progress=say, observers=observers)

    def reset(self, weights: Any = None) -> None:
        put(dict(self.model.named_parameters()), weights or self.parent)
        self.model.requires_grad_(requires_grad=True).train()

    def probes(self, schedule: Schedule | None = None) -> tuple[Probe, ...]:
        rows = examples("governed", "test")
        return make_probes(rows, schedule or self.schedule, pad=PAD)

    def govern(
        self,
        *observers: Any,
        constitution: Constitution = CONSTITUTION,
        plan: Plan = RECIPE.governed,
        sampler: Sampler | None = None,
        ledger: Any = None,
    ) -> None:
        taught = examples("governed", "train")
        self.trainer(*observers, ledger=ledger).governed(
            plan,
            sampler or Sampler(taught, seed=self.seed + 1),
            constitution=constitution,
            schedule=compile_schedule(constitution, self.layout),
        )

    def unrouted(self, *observers: Any) -> None:
        # As many rows as a governed step has, anchors included.
        plan = Plan("free", RECIPE.governed.steps, 20, RECIPE.governed.lr)
        sampler = Sampler(examples("governed", "train"), seed=self.seed + 1)
        self.trainer(*observers).unrouted(plan, sampler)

    def checked(self, found: Measurement, probes: Sequence[Probe]) -> Measurement:
        return found.with_exchanges(
            exchange_units(
                self.model, self.parent, probes, self.layout, units=found.units
            )
        )


def figures(found: Measurement) -> dict[str, Any]:
    return {
        name: {
            "layers": [round(share / 1e6, 3) for share in profile.layers],
            "entropyNormalised": profile.entropy_normalised,
            "inBand": profile.in_band,
            "inBandError": profile.bars.in_band if profile.bars else None,
            "outside": profile.outside,
            "negative": profile.negative_share,
            "residual": profile.residual,
            "variation": profile.total_variation,
            "drop": profile.drop / 1e6,
            "valid": profile.valid,
        }
        for name, profile in ((n, found.profile(n)) for n in found.allocations)
    }


# --- parts ------------------------------------------------------------------------


def recipe(world: World) -> dict[str, Any]:
    """The demo's governed stage, and the same rows unrouted."""
    made: dict[str, Any] = {}
    for name, train in (("routed", world.govern), ("unrouted", world.unrouted)):
        world.reset()
        probes = world.probes()
        timed = Timed(ProfileRecorder(world.model, probes, world.layout))
        train(timed)
        found = world.checked(timed.inner.result(name), probes)
        half = found.steps // 2
        made[name] = {
            "profiles": figures(found),
            "samples": len(found.curve),
            "cost": timed.ratio(),
            "costSecondHalf": timed.ratio(half),
        }
        if name == "routed":
            made["governed"] = snapshot(world.model)
    return made


def sampling(world: World) -> dict[str, Any]:
    """The residual of each principle by the way of integrating, and what it costs."""
    made: dict[str, Any] = {}
    for name, train in (("routed", world.govern), ("unrouted", world.unrouted)):
        world.reset()
        probes = world.probes()
        ways = {
            f"trapezoid, every {n}": Timed(Trapezoid(world.model, probes, n))
            for n in (1, 10)
        }
        ours = Timed(ProfileRecorder(world.model, probes, world.layout))
        train(*ways.values(), ours)
        found = ours.inner.result(name)
        made[name] = {
            way: {"residuals": t.inner.residuals(), "seconds": sum(t.spent)}
            for way, t in ways.items()
        }
        made[name]["recorder"] = {
            "residuals": {n: found.profile(n).residual for n in found.allocations},
            "seconds": sum(ours.spent),
        }
    return made


def planted(world: World) -> list[dict[str, Any]]:
    """Each principle in one layer; two rounds put one into every layer."""
    made = []
    for first in (0, 1):
        layers = {n: (first + 2 * i) % LAYERS for i, n in enumerate(ROUTED)}
        world.reset()
        parsed = parse_constitution(_planted(layers))
        schedule = compile_schedule(parsed, world.layout)
        probes = world.probes(schedule)
        recorder = ProfileRecorder(world.model, probes, world.layout)
        world.govern(recorder, constitution=parsed, plan=Plan("planted", 150, 12, 3e-3))
        found = world.checked(recorder.result("planted"), probes)
        for name, values in figures(found).items():
            made.append({"principle": name, "layer": layers[name], **values})
    return made


def _planted(layers: Mapping[str, int]) -> bytes:
    rows = [
        f"  - {{id: {name}, title: T, class: adaptable, text: T, "
        f"band: {{layers: [{layer}]}}}}"
        for name, layer in layers.items()
    ]
    head = "schema: constitution/1\nid: planted\nversion: 1.0.0\nprinciples:\n"
    keep = "  - {id: keep, title: T, class: capability, text: T}\n"
    return (head + "\n".join(rows) + "\n" + keep).encode()


class Poisoned(Sampler):
    """Deals rows that teach against a principle in some turns."""

    def __init__(
        self, rows: Sequence[Example], *, seed: int, bad: Sequence[Example], at: Any
    ) -> None:
        super().__init__(rows, seed=seed)
        self._bad, self._at, self._made = Sampler(bad, seed=seed), at, -1

    def draw(self, counts: Mapping[str, int]) -> list[Example]:
        self._made += 1
        drawn = super().draw(counts)
        if self._made not in self._at:
            return drawn
        return [*drawn[:8], *self._bad.draw({"refuse": 8})]


LATER = """\
schema: constitution/1
id: later
version: 1.0.0
principles:
  - {id: tone, title: T, class: adaptable, text: T, band: all, anchors: {keep: 8}}
  - {id: keep, title: T, class: capability, text: T}
"""


def diagnosis(world: World, governed: Any) -> dict[str, Any]:
    """One damaged layer among layers that all moved, and planted steps."""
    held = examples("governed", "heldout", ["refuse"])
    probe = make_probe("refuse", held, pad=PAD, chunks=len(held))
    tampered = []
    for layer in range(LAYERS):
        world.reset(governed)
        later = snapshot(world.model)
        generator = torch.Generator().manual_seed(world.seed)
        for name, tensor in later.items():
            hit = world.layout.units[name] == f"L{layer:02d}"
            noise = torch.randn(tensor.shape, generator=generator)
            tensor.add_(noise, alpha=0.05 if hit else 0.005)
        found = diagnose(world.model, later, probe, world.layout)
        tampered.append(_named(found, layer))
    contrary = []
    for layer in range(LAYERS):
        later = _taught_contrary(world, governed, layer)
        contrary.append(
            _named(diagnose(world.model, later, probe, world.layout), layer)
        )
    return {
        "tampered": tampered,
        "contrary": contrary,
        "planted": _poisoned(world, governed, probe),
    }


def _named(found: Any, layer: int) -> dict[str, Any]:
    return {
        "layer": layer,
        "verdict": found.fall.verdict,
        "first": found.units[0].unit if found.units else None,
        "sure": found.units[0].first if found.units else None,
        "responsible": list(found.responsible),
    }


def _taught_contrary(world: World, governed: Any, layer: int) -> Any:
    """Contrary rows in one layer, then harmless ones in all."""
    world.reset(governed)
    for name, parameter in world.model.named_parameters():
        parameter.requires_grad_(world.layout.units[name] == f"L{layer:02d}")
    bad = Sampler(examples("base", "train", ["refuse"]), seed=world.seed)
    world.trainer().unrouted(Plan("contrary", 10, 12, 2e-3), bad)
    world.model.requires_grad_(requires_grad=True)
    rest = Sampler(examples("governed", "train", ["tone", "keep"]), seed=world.seed)
    world.trainer().unrouted(Plan("harmless", 5, 12, 1e-4), rest)
    later = snapshot(world.model)
    world.reset(governed)
    return later


def _poisoned(world: World, governed: Any, probe: Probe) -> dict[str, Any]:
    steps, count = 60, 5
    turns = sorted(random.Random(world.seed).sample(range(6, steps - 2), count))
    world.reset(governed)
    parsed, ledger = parse_constitution(LATER.encode()), Records()
    watched = [p for p in world.probes() if p.principle == "refuse"]
    recorder = ProfileRecorder(world.model, watched, world.layout, every=4)
    world.govern(
        recorder,
        constitution=parsed,
        plan=Plan("later", steps, 12, 5e-4),
        sampler=Poisoned(
            examples("governed", "train", ["tone", "keep"]),
            seed=world.seed,
            bad=examples("base", "train", ["refuse"]),
            at=turns,
        ),
        ledger=ledger,
    )
    later, measured = snapshot(world.model), recorder.result("later")
    world.reset(governed)
    found = diagnose(world.model, later, probe, world.layout)
    units = found.responsible or tuple(f"L{n:02d}" for n in range(LAYERS))
    made: dict[str, Any] = {"turns": turns, "verdict": found.fall.verdict}
    for method, known in (("lca", measured), ("energy", None)):
        ranked = rank_steps(ledger.steps, known, "refuse", units=units, sign=-1).ranked
        order = [step.step for step in ranked]
        made[method] = {
            "area": _area(order, turns, steps),
            "precision": len(set(order[:count]) & set(turns)) / count,
        }
    return made


def _area(order: Sequence[int], turns: Sequence[int], steps: int) -> float:
    """How often a planted step stands before another one; ties count half."""
    place = {step: number for number, step in enumerate(order)}
    pairs = [
        (place.get(p, steps), place.get(o, steps))
        for p in turns
        for o in set(range(steps)) - set(turns)
    ]
    return statistics.fmean((p < o) + (p == o) / 2 for p, o in pairs)


# --- tables -----------------------------------------------------------------------


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(map(_cell, row))} |")
    print()


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list):
        return " ".join(map(_cell, value))
    return "-" if value is None else str(value)


def show(seed: int, made: Mapping[str, Any]) -> None:
    print(f"### seed {seed}\n")
    numbers = ("entropyNormalised", "inBand", "inBandError", "negative", "residual")
    keys = ("layers", *numbers, "variation")
    for name in ("routed", "unrouted"):
        if "recipe" in made:
            part = made["recipe"][name]
            costs = (
                f"cost {part['cost']:.2f}x, second half {part['costSecondHalf']:.2f}x"
            )
            print(f"{name}: {part['samples']} samples, {costs}\n")
            rows = [[n, *map(v.get, keys)] for n, v in part["profiles"].items()]
            table(["principle", *keys], rows)
        if "sampling" in made:
            ways = made["sampling"][name].items()
            rows = [[w, *v["residuals"].values(), v["seconds"]] for w, v in ways]
            table([f"residual, {name}", *ROUTED, "CPU s"], rows)
    if "planted" in made:
        keys = (
            "principle",
            "layer",
            "layers",
            "inBand",
            "residual",
            "variation",
            "drop",
        )
        table(keys, [[row[key] for key in keys] for row in made["planted"]])
    if "diagnosis" in made:
        part = made["diagnosis"]
        keys = ("layer", "verdict", "first", "sure", "responsible")
        for kind in ("tampered", "contrary"):
            table([kind, *keys[1:]], [[row[k] for k in keys] for row in part[kind]])
        found = part["planted"]
        rows = [[m, *found[m].values()] for m in ("lca", "energy")]
        table([f"planted, {found['verdict']}", "area", "precision"], rows)


PARTS = ("recipe", "sampling", "planted", "diagnosis")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument("--parts", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--out", type=Path, help="write everything as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    whole: dict[str, Any] = {}
    for seed in options.seeds:
        world, made = World(seed), {}
        if {"recipe", "diagnosis"} & set(options.parts):
            made["recipe"] = recipe(world)
            governed = made["recipe"].pop("governed")
        for name, part in (("sampling", sampling), ("planted", planted)):
            if name in options.parts:
                made[name] = part(world)
        if "diagnosis" in options.parts:
            made["diagnosis"] = diagnosis(world, governed)
        show(seed, made)
        whole[str(seed)] = made
        if options.out:
            options.out.write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
