import copy
import io

import pytest
import torch
from fakes.training import (
    CONSTITUTION,
    fingerprints,
    schedule_of,
    tiny_model,
    token_rows,
)

from attest.errors import TrainingError
from attest.training.batches import Sampler
from attest.training.confinement import ConfinementError, digests, joint_digest
from attest.training.ledger import Ledger, read_ledger
from attest.training.loop import Plan, Trainer
from attest.training.router import NonFiniteError

NAMES = ("refuse", "unsure", "tone", "keep")
PLAN = Plan("governed", 6, 2, 1e-3)


def silent(_stage, _done, _total):
    pass


@pytest.fixture
def rows():
    return token_rows(NAMES)


@pytest.fixture
def model():
    return tiny_model()


def through_a_file(state):
    """As a checkpoint is read: no code in it."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


class HaltError(Exception):
    pass


def run(model, rows, path, **kwargs):
    kind, dials = kwargs.pop("kind", "governed"), kwargs.pop("dials", {})
    if kind == "governed":
        kwargs |= {"constitution": CONSTITUTION, "schedule": schedule_of(model)}
    with Ledger.create(path) as ledger:
        trainer = Trainer(model, ledger, progress=silent, **dials)
        getattr(trainer, kind)(PLAN, Sampler(rows, seed=3), **kwargs)
    return list(read_ledger(path))


@pytest.mark.parametrize("kind", ["governed", "unrouted"])
def test_a_stopped_stage_goes_on_to_the_same_bytes(model, rows, tmp_path, kind):
    whole, stopped = model, copy.deepcopy(model)
    records = run(whole, rows, tmp_path / "whole", kind=kind)
    kept = []

    def stop(stage):
        if stage.done == 3:
            kept.append(through_a_file(stage.state_dict()))
            kept.append(copy.deepcopy(stopped.state_dict()))
        if stage.done == 4:  # a step after the checkpoint is lost
            raise HaltError

    with pytest.raises(HaltError):
        run(stopped, rows, tmp_path / "first", kind=kind, after=stop)
    again = tiny_model(seed=9)
    again.load_state_dict(kept[1])
    rest = run(again, rows, tmp_path / "second", kind=kind, state=kept[0])
    assert fingerprints(again) == fingerprints(whole)
    assert [{**r, "seq": 0} for r in rest] == [{**r, "seq": 0} for r in records[3:]]


def test_state_of_other_weights_is_refused(model, rows, tmp_path):
    states = []
    run(model, rows, tmp_path / "one", after=lambda s: states.append(s.state_dict()))
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    with pytest.raises(ConfinementError, match=r"first lm_head\.weight"):
        run(model, rows, tmp_path / "two", state=states[-1])


def test_state_of_other_rows_is_refused(model, rows, tmp_path):
    states = []
    run(model, rows, tmp_path / "one", after=lambda s: states.append(s.state_dict()))
    with pytest.raises(TrainingError, match="rows are not those"):
        run(model, rows[1:], tmp_path / "two", state=states[-1])


def test_sampler_deals_on_from_its_state(rows):
    one = Sampler(rows, seed=1)
    one.draw({"tone": 3})
    one.turn(NAMES)
    state = through_a_file(one.state_dict())
    two = Sampler(rows, seed=2)
    two.load_state_dict(state)
    for _ in range(5):
        assert one.draw({"tone": 3, "keep": 5}) == two.draw({"tone": 3, "keep": 5})
        assert one.turn(NAMES) == two.turn(NAMES)
        assert one.state_digest() == two.state_digest()


def test_every_principle_has_its_turn_before_one_again(rows):
    sampler = Sampler(rows, seed=1)
    assert {sampler.turn(NAMES) for _ in NAMES} == set(NAMES)


def test_sparse_checks_leave_no_gap_in_the_record(model, rows, tmp_path):
    records = run(model, rows, tmp_path / "ledger", dials={"check_every": 4})
    steps, last = records[:-1], records[-1]
    assert ["frozen" in record for record in steps] == [False, False, False, True] + [
        False
    ] * 2
    outside = len(dict(model.named_parameters())) - 27
    assert all(r.get("guarded", outside) == outside for r in steps)
    assert last["kind"] == "check"
    # Embedding, final norm and head: nothing else is outside of every band.
    assert last["unchanged"] >= 3
    assert last["weights"] == joint_digest(digests(dict(model.named_parameters())))
    assert (last["mechanism"], last["checkEvery"]) == ("toggle", 4)


def test_non_finite_loss_leaves_model_and_ledger(model, rows, tmp_path):
    def spoil(stage):
        if stage.done == 2:
            with torch.no_grad():
                model.model.layers[0].mlp.up_proj.weight[0, 0] = float("inf")
            spoiled.append(fingerprints(model))

    spoiled = []
    path = tmp_path / "ledger"
    with pytest.raises(NonFiniteError, match="the loss of rows"):
        run(model, rows, path, kind="unrouted", after=spoil)
    assert len(list(read_ledger(path))) == 2
    assert fingerprints(model) == spoiled[0]
