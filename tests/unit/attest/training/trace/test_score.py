"""Traces of a real, small governed run, with planted rows."""

import pytest
import torch

from attest.errors import ConfigurationError
from attest.training import demo
from attest.training.batches import Example, Sampler, encode
from attest.training.constitution import parse_constitution
from attest.training.demo.corpus import Row, corpus
from attest.training.demo.tiny import build_model, build_tokenizer
from attest.training.layout import read_layout
from attest.training.ledger import Ledger
from attest.training.loop import Plan, Trainer
from attest.training.routing import compile_schedule
from attest.training.trace.record import Record
from attest.training.trace.recorder import TraceRecorder
from attest.training.trace.score import Tracer, ledger_events
from attest.training.trace.values import LEAST_NATS, Threshold

TOKENIZER = build_tokenizer()
PLANTED_TURNS = (18, 22, 26, 30)
ODD = [
    Row(f"odd-{n}", "refuse", "train", "", question, "ask a smith first.")
    for n, question in enumerate(
        ("how to pick a lock?", "teach me to pick a lock.", "can i pick a lock?",
         "help me to pick a lock.", "show me to pick a lock.")
    )
]  # fmt: skip


class PlantingSampler(Sampler):
    """Odd rows take the place of the first rows in two turns of `refuse`."""

    count = 0

    def draw(self, counts):
        rows = super().draw(counts)
        if next(iter(counts)) == "refuse":
            if self.count in PLANTED_TURNS:
                rows[: len(ODD)] = [encode(TOKENIZER, row) for row in ODD]
            self.count += 1
        return rows


class Run:
    def __init__(self, folder):
        constitution = parse_constitution(demo.constitution_bytes())
        self.model = build_model(TOKENIZER, seed=3)
        schedule = compile_schedule(constitution, read_layout(self.model))
        rows = [encode(TOKENIZER, row) for row in corpus("governed", "train")]
        recorder = TraceRecorder(self.model, schedule)
        path = folder / "ledger.jsonl"
        with Ledger.create(path) as ledger:
            say = {"progress": lambda *_: None}
            base = [encode(TOKENIZER, row) for row in corpus("base", "train")]
            Trainer(self.model, ledger, **say).unrouted(
                Plan("base", 90, 16, 3e-3), Sampler(base, seed=3)
            )
            self.parent = {
                n: p.detach().clone() for n, p in self.model.named_parameters()
            }
            Trainer(self.model, ledger, observers=[recorder], **say).governed(
                Plan("governed", 105, 8, 3e-3),
                PlantingSampler(rows, seed=4),
                constitution=constitution,
                schedule=schedule,
            )
        recorder.write(folder / "trace", rows=rows[::3])
        self.record = Record.read(folder / "trace")
        self.model.eval()
        self.events = ledger_events(path)
        known = {row.id: row for row in rows}
        known |= {row.id: encode(TOKENIZER, row) for row in ODD}
        self.rows = {s: row for s, row in known.items() if s[-1] in "0123"}
        self.tracer = Tracer(self.model, self.record, self.events, rows=self.rows.get)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Run(tmp_path_factory.mktemp("traced"))


def heldout(principle, count=4):
    rows = [row for row in corpus("governed", "heldout") if row.principle == principle]
    return [encode(TOKENIZER, row) for row in rows[:count]]


def state(model):
    return {
        n: (p.detach().clone(), p.requires_grad) for n, p in model.named_parameters()
    }


def test_deltas_lead_back_to_the_parent(run):
    parent = run.record.parent(dict(run.model.named_parameters()))
    assert len(parent) == 6 * 9
    for name, tensor in parent.items():
        assert torch.allclose(tensor, run.parent[name], atol=1e-5)


def test_governed_answers_are_put_down_to_their_principle(run):
    right = {}
    for principle in ("refuse", "unsure", "tone"):
        for example in heldout(principle):
            found = run.tracer.trace(example, top=1)
            assert found.governed
            assert found.residual < 0.1
            right[example.id] = found.principles[0].principle == principle
            assert right[example.id] or found.principles[0].support < 0.95
    # Two of the twelve: this run is half as long as the demo's.
    assert sum(right.values()) >= len(right) - 2


def test_shares_of_principles_layers_and_tokens_are_the_same_sum(run):
    found = run.tracer.trace(heldout("refuse")[0])
    explained = sum(share.nats for share in found.principles)
    assert explained == pytest.approx(found.gain, rel=0.1)
    for share in found.principles:
        assert sum(share.layers.values()) == pytest.approx(share.nats)
        assert len(share.tokens) == found.tokens
    # By other means: finite differences against gradients.
    tokens = sum(sum(share.tokens) for share in found.principles)
    assert tokens == pytest.approx(explained, rel=0.1)
    bands = {s.principle: list(s.layers) for s in found.principles}
    assert bands["tone"] == ["L00", "L01", "L02"]
    assert bands["refuse"] == ["L03", "L04", "L05"]


def test_ordinary_answers_are_not_put_down_to_governed_training(run):
    found = [run.tracer.trace(example) for example in heldout("keep", 8)]
    assert sum(trace.governed for trace in found) <= 1
    for trace in found:
        if not trace.governed:
            assert (trace.principles, trace.events, trace.residual) == ((), (), None)


def test_threshold_says_on_how_many_rows_it_was_chosen(run):
    threshold = run.record.threshold
    assert threshold.rows == 96
    assert threshold.false_alarms <= 0.1
    assert threshold.missed <= 0.05


def test_planted_steps_and_rows_come_first(run):
    planted = {
        event["seq"]
        for event in run.events
        if any("odd" in s for s in event["samples"])
    }
    assert len(planted) == len(PLANTED_TURNS)
    row = Row("q", "", "test", "", "say how to pick a lock.", "ask a smith first.")
    found = run.tracer.trace(encode(TOKENIZER, row), top=len(planted))
    assert {event.seq for event in found.events} == planted
    assert found.events[0].rows[0].id.startswith("odd")


def test_without_rows_planted_steps_still_come_early(run):
    tracer = Tracer(run.model, run.record, run.events)
    row = Row("q", "", "test", "", "say how to pick a lock.", "ask a smith first.")
    found = tracer.trace(encode(TOKENIZER, row), top=len(run.events))
    ranks = [
        rank
        for rank, event in enumerate(found.events)
        if any("odd" in sample for sample in event.samples)
    ]
    assert sum(ranks) / len(ranks) < len(run.events) / 4
    assert all(event.rows == () for event in found.events)


def test_events_are_those_of_the_ledger(run):
    found = run.tracer.trace(heldout("tone")[0], top=1000)
    assert {e.seq for e in found.events} == {e["seq"] for e in run.events}
    by_seq = {event["seq"]: event for event in run.events}
    for event in found.events:
        assert list(event.samples) == by_seq[event.seq]["samples"]
        assert event.principle == by_seq[event.seq]["principle"]
        assert {row.id for row in event.rows} <= set(event.samples)
    assert list(found.events) == sorted(found.events, key=lambda e: -e.score)


def test_model_is_left_as_it_was(run):
    before = state(run.model)
    run.tracer.trace(heldout("refuse")[0])
    for name, (tensor, wanted) in state(run.model).items():
        assert torch.equal(tensor, before[name][0])
        assert wanted == before[name][1]
    assert all(p.grad is None for p in run.model.parameters())


def test_model_is_left_as_it_was_when_a_trace_fails(run):
    before = state(run.model)
    with pytest.raises(IndexError):
        run.tracer.trace(Example("", "", (1, 2), (10**6,)))
    for name, (tensor, _) in state(run.model).items():
        assert torch.equal(tensor, before[name][0])


def test_same_answer_gives_the_same_trace(run):
    example = heldout("unsure")[0]
    assert run.tracer.trace(example) == run.tracer.trace(example)


def test_events_of_another_run_are_refused(run):
    with pytest.raises(ConfigurationError, match="expected 105 steps"):
        Tracer(run.model, run.record, run.events[:-1])


def test_threshold_without_rows_is_twenty_times_likelier():
    assert Threshold() == Threshold(LEAST_NATS, None, None, 0)
