import random
from statistics import fmean

import pytest
import torch
from fakes.profiled import World, constitution, rows

from attest.errors import EvidenceUnavailableError, ProfileError
from attest.training.batches import Sampler
from attest.training.confinement import digests
from attest.training.ledger import float_hex
from attest.training.loop import Plan
from attest.training.mechanism import named_parameters
from attest.training.profile.blame import rank_steps
from attest.training.profile.diagnose import diagnose
from attest.training.profile.diagnosis import Fall
from attest.training.profile.measured import Event
from attest.training.profile.patching import snapshot
from attest.training.profile.probe import make_probe
from attest.training.profile.probe_loss import put
from attest.training.routing import compile_schedule


class Memory:
    """A ledger in memory."""

    def __init__(self):
        self.records = []

    def append(self, record):
        self.records.append({**record, "seq": len(self.records)})


def row_probe(name="a", count=12):
    held = rows("governed", count=count, seed=2, principles=(name,))
    return make_probe(name, held, pad=0, chunks=count)


class Governed(World):
    """A world after its governed stage."""

    def __init__(self, seed=0):
        super().__init__(seed=seed, a=(1, 2), b=(0, 3))
        self.govern(steps=60, lr=5e-3)
        self.parent = snapshot(self.model)

    def later(self, *units, steps, lr=5e-3, **taught):
        """Weights after unrouted training of these units on such rows."""
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(self.layout.units[name] in units)
        self.unrouted(steps=steps, lr=lr, taught=rows("governed", **taught))
        found = snapshot(self.model)
        self.reset()
        return found

    def diagnose(self, later, probe=None):
        return diagnose(self.model, later, probe or row_probe(), self.layout)


@pytest.fixture(scope="session")
def trained_governed():
    return Governed()


@pytest.fixture
def governed(trained_governed):
    return trained_governed.reset()


LAYERS = ("L00", "L01", "L02", "L03")


# --- was it lost? -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.2, 0.9, "degraded"),
        (-0.3, 0.05, "not degraded"),
        (-0.3, 0.5, "cannot tell"),
        (0.1, 0.5, "cannot tell"),
    ],
)
def test_a_verdict_needs_the_whole_interval(low, high, verdict):
    assert Fall(12, (low + high) / 2, low, high).verdict == verdict


def test_the_same_weights_have_lost_nothing(governed):
    found = governed.diagnose(governed.parent)
    assert found.fall == Fall(12, 0.0, 0.0, 0.0)
    assert found.fall.verdict == "not degraded"
    assert (found.units, found.responsible, found.built) == ((), (), None)


def test_more_of_the_same_has_lost_nothing(governed):
    later = governed.later(*LAYERS, steps=10, lr=1e-3, seed=6)
    assert governed.diagnose(later).fall.verdict == "not degraded"


def test_the_model_is_left_as_it_is(governed):
    later = {n: t + 0.1 for n, t in governed.parent.items()}
    before = digests(named_parameters(governed.model))
    assert governed.diagnose(later).fall.verdict == "degraded"
    assert digests(named_parameters(governed.model)) == before
    assert governed.model.training


# --- in which layers? -------------------------------------------------------------


@pytest.mark.parametrize("layer", range(4))
def test_a_tampered_layer_is_named_first(governed, layer):
    """All layers moved on harmless rows, and one of them was damaged."""
    later = governed.later(*LAYERS, steps=10, lr=1e-3, seed=6)
    generator = torch.Generator().manual_seed(layer)
    for name, tensor in later.items():
        if governed.layout.units[name] == f"L{layer:02d}":
            tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=0.25)
    found = governed.diagnose(later)
    assert found.fall.verdict == "degraded"
    assert found.responsible == (f"L{layer:02d}",)
    assert found.recovered > 0.9
    assert found.units[0].unit == f"L{layer:02d}"
    assert found.units[0].first > 0.95
    assert found.units[0].share > 0.8
    assert {unit.unit for unit in found.units} == set(LAYERS)


@pytest.mark.parametrize("layer", [0, 2])
def test_the_layer_that_was_taught_the_contrary_is_named_first(governed, layer):
    unit = f"L{layer:02d}"
    first = governed.later(unit, steps=15, principles=("a",), teach="base", seed=5)
    put(dict(governed.model.named_parameters()), first)
    later = governed.later(*LAYERS, "head", steps=5, lr=2e-4, principles=("b",), seed=6)
    found = governed.diagnose(later)
    assert found.fall.mean > 1
    assert found.units[0].unit == unit
    assert found.responsible[0] == unit


def test_a_whole_model_that_was_taught_the_contrary(governed):
    later = governed.later(*LAYERS, steps=10, principles=("a",), teach="base", seed=5)
    found = governed.diagnose(later)
    assert found.fall.verdict == "degraded"
    assert found.recovered >= 0.9
    assert sum(unit.share for unit in found.units) == pytest.approx(1)
    assert sum(unit.first for unit in found.units) == pytest.approx(1)
    assert found == governed.diagnose(later)


# --- by which steps? --------------------------------------------------------------

LATER = constitution(b=(0, 1, 2, 3))


class Poisoned(Sampler):
    """Deals contrary rows of another principle in some turns."""

    def __init__(self, examples, *, seed, rows, turns):
        super().__init__(examples, seed=seed)
        self._bad, self._when, self._count = rows, turns, -1

    def draw(self, counts):
        self._count += 1
        drawn = super().draw(counts)
        return [*drawn[:4], *self._bad] if self._count in self._when else drawn


def poisoned_stage(world, turns, *, steps=40, seed=3):
    """A later governed stage for b, some of whose batches teach against a."""
    contrary = rows("governed", count=8, principles=("a",), teach="base", seed=9)
    taught = rows("governed", principles=("b",), seed=8)
    ledger, recorder = Memory(), world.recorder(every=4)
    world.trainer(recorder, ledger=ledger).governed(
        Plan("later", steps, 12, 1e-3),
        Poisoned(taught, seed=seed, rows=contrary, turns=turns),
        constitution=LATER,
        schedule=compile_schedule(LATER, world.layout),
    )
    later = snapshot(world.model)
    world.reset()
    steps = [record for record in ledger.records if record["kind"] == "step"]
    return later, steps, recorder.result("later")


def area(ranked, planted, of):
    """How often a planted step stands before another one: 0.5 by chance."""
    place = {step.step: number for number, step in enumerate(ranked)}
    others = [s for s in range(of) if s not in planted]
    return fmean(
        (place.get(p, of) < place.get(o, of))
        + (place.get(p, of) == place.get(o, of)) / 2
        for p in planted
        for o in others
    )


def test_planted_steps_are_found_above_chance(governed):
    turns = sorted(random.Random(0).sample(range(6, 38), 4))
    later, records, measured = poisoned_stage(governed, turns)
    found = governed.diagnose(later)
    assert found.fall.verdict == "degraded"
    ranked = rank_steps(records, measured, "a", units=found.responsible, sign=-1)
    assert (ranked.method, ranked.of) == ("lca", 40)
    assert area(ranked.ranked, turns, 40) > 0.75
    energy = rank_steps(records, None, "a", units=found.responsible, sign=-1)
    assert area(energy.ranked, turns, 40) < 0.65
    first = ranked.ranked[0]
    assert records[first.seq]["step"] == first.step
    planted = [s for s in ranked.ranked if any(r.startswith("a-") for r in s.samples)]
    assert {step.step for step in planted} == set(turns)
    assert sum(step.share for step in ranked.ranked) == pytest.approx(1)


def record(step, **members):
    return {
        "kind": "step",
        "stage": "governed",
        "step": step,
        "seq": step + 10,
        **members,
    }


def amounts(step, source, **by_unit):
    return Event(step, source, {"a": {u: v * 10**9 for u, v in by_unit.items()}})


@pytest.fixture
def measured(governed):
    recorder = governed.recorder()
    governed.govern(recorder, steps=4)
    found = recorder.result("governed")

    def with_events(*events):
        values = {f: getattr(found, f) for f in found.__slots__}
        return type(found)(**values | {"events": events})

    return with_events


def test_what_the_last_step_still_pushed_is_taken_away(measured):
    records = [record(step) for step in range(4)]
    found = measured(
        amounts(0, "a", L01=1.0),
        amounts(1, "a", L01=0.9),
        amounts(2, "b", L03=5.0),
        amounts(3, "a", L01=1.81),
    )
    ranked = rank_steps(records, found, "a", units=["L01"], sign=1).ranked
    assert [(s.seq, round(s.score, 6)) for s in ranked] == [(10, 1.0), (13, 1.0)]


def test_a_profile_of_another_ledger_is_refused(measured):
    found = measured(amounts(0, "a", L01=1.0))
    with pytest.raises(EvidenceUnavailableError, match="expected the 4 steps"):
        rank_steps([record(0)], found, "a", units=["L01"], sign=1)


@pytest.mark.parametrize("events", [(), (Event(0, "b", {"b": {"L01": 1}}),)])
def test_without_events_only_energies_are_left(measured, events):
    records = [
        record(0, energy={"L01": float_hex(0.5)}),
        record(1, energy={"L01": float_hex(2.0), "L02": float_hex(9.0)}),
        record(2, energy={"L02": float_hex(9.0)}),
        record(3),
    ]
    found = rank_steps(records, measured(*events), "a", units=["L01"], sign=-1)
    assert (found.method, found.of) == ("energy", 3)
    assert [(s.seq, s.score) for s in found.ranked] == [(11, 2.0), (10, 0.5)]


@pytest.mark.parametrize("energy", [None, {"L01": "xyz"}])
def test_nothing_to_rank_by(energy):
    members = {} if energy is None else {"energy": energy}
    with pytest.raises(EvidenceUnavailableError, match="energies"):
        rank_steps([record(0, **members)], None, "a", units=["L01"], sign=1)


# --- bad input --------------------------------------------------------------------


def test_too_few_rows(governed):
    with pytest.raises(ProfileError, match="at least 4 held-out rows"):
        governed.diagnose(governed.parent, row_probe(count=3))


def test_rows_that_share_a_chunk(governed):
    with pytest.raises(ProfileError, match="each a chunk of its own"):
        governed.diagnose(governed.parent, governed.probes[0])


def test_another_architecture(governed):
    later = {n: t for n, t in governed.parent.items() if "layers.3" not in n}
    with pytest.raises(ProfileError, match=r"have no model\.layers\.3") as caught:
        governed.diagnose(later)
    assert "merge adapters first" in caught.value.hint
