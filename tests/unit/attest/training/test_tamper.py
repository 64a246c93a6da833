import copy
from dataclasses import replace

import pytest
import torch
from fakes.planted import ROWS, planted, rows_of, tokenizer
from fakes.resistance import CONSTITUTION
from fakes.training import fingerprints, schedule_of

from attest.errors import TrainingError
from attest.training.batches import Sampler, collate, encode
from attest.training.constitution import Band
from attest.training.ledger import Ledger, read_ledger
from attest.training.loop import Plan, Trainer
from attest.training.resistance.measure import measure
from attest.training.resistance.suite import Attack, Suite
from attest.training.router import NonFiniteError
from attest.training.tamper import Attacks, Tamper

PLAN = Plan("governed", 8, 4, 1e-3)
EARLY = Attacks(steps=1, rows=4, start=0.5)
CONTRARY = [encode(tokenizer(), row) for row in rows_of("ok")]
OWN = [encode(tokenizer(), row) for row in rows_of("no")]
WIDE = replace(
    CONSTITUTION,
    principles=(
        replace(CONSTITUTION.principle("refuse"), band=Band()),
        CONSTITUTION.principle("keep"),
    ),
)


@pytest.fixture
def model():
    return copy.deepcopy(planted().weak)


def tamper(model, attacks=EARLY, seed=5):
    return Tamper(model, {"refuse": CONTRARY}, seed=seed, attacks=attacks)


def loss_on(model, rows):
    return model(**collate(rows, pad=0).tensors).loss


def silent(_stage, _done, _total):
    pass


def govern(model, path, *, plan=PLAN, constitution=CONSTITUTION, **options):
    rows = [*rows_of("no"), *rows_of("hm", "keep")]
    sampler = Sampler([encode(tokenizer(), row) for row in rows], seed=3)
    with Ledger.create(path) as ledger:
        Trainer(model, ledger, progress=silent).governed(
            plan,
            sampler,
            constitution=constitution,
            schedule=schedule_of(model, constitution),
            **options,
        )
    return list(read_ledger(path))


def test_weights_are_back_bit_for_bit(model):
    before = fingerprints(model)
    tamper(model).add_gradient("refuse", OWN)
    assert fingerprints(model) == before


def test_weights_are_back_where_the_attack_breaks_the_model(model):
    before = fingerprints(model)
    broken = Attacks(steps=2, least=1e30, most=1e30)
    with pytest.raises(NonFiniteError, match="simulated attack on 'refuse'"):
        tamper(model, broken).add_gradient("refuse", OWN)
    assert fingerprints(model) == before
    assert all(p.requires_grad for p in model.parameters())


def test_gradient_is_that_after_the_attack(model):
    attacks = Attacks(steps=1, least=3e-3, most=3e-3, rows=8, weight=0.5)
    attacked = copy.deepcopy(model)
    loss_on(attacked, CONTRARY).backward()
    with torch.no_grad():
        for parameter in attacked.parameters():
            if parameter.grad is not None:
                parameter.sub_(3e-3 * parameter.grad.sign())
    attacked.zero_grad()
    loss = loss_on(attacked, OWN)
    (0.5 * loss).backward()
    noted = tamper(model, attacks).add_gradient("refuse", OWN)["tamper"]
    for found, expected in zip(model.parameters(), attacked.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad)
    assert loss.item() > loss_on(model, OWN).item()
    # All eight rows, in whatever order: the batch is the whole deck.
    assert sorted(noted["samples"]) == [row.id for row in CONTRARY]


def test_gradient_is_added_to_the_steps_own(model):
    idle = Attacks(steps=0)
    loss_on(model, OWN).backward()
    once = [p.grad.clone() for p in model.parameters()]
    tamper(model, idle).add_gradient("refuse", OWN)
    for parameter, gradient in zip(model.parameters(), once, strict=True):
        torch.testing.assert_close(parameter.grad, 2 * gradient)


def test_only_tensors_that_need_a_gradient_get_one(model):
    band = {name for name, _ in model.named_parameters() if "layers.1" in name}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in band)
    tamper(model).add_gradient("refuse", OWN)
    found = {n for n, p in model.named_parameters() if p.grad is not None}
    assert found == band
    assert {n for n, p in model.named_parameters() if p.requires_grad} == band


def test_attacks_begin_late_and_spare_other_principles(model):
    found = tamper(model)
    assert [found.due("refuse", step=n, steps=8) for n in (0, 3, 4, 7)] == [
        False, False, True, True,
    ]  # fmt: skip
    assert not found.due("keep", step=7, steps=8)


def test_principle_without_contrary_rows_is_refused(model):
    with pytest.raises(TrainingError, match="'refuse': no rows teach against it"):
        Tamper(model, {"refuse": []}, seed=0)


def test_confinement_holds_and_the_ledger_tells(model, tmp_path):
    before = fingerprints(model)
    records = govern(model, tmp_path / "ledger", tamper=tamper(model))
    after = fingerprints(model)
    changed = {name for name in before if before[name] != after[name]}
    assert changed
    assert all("layers.1" in name for name in changed)
    assert ["tamper" in r for r in records] == [False] * 4 + [True] * 4
    assert len(records[-1]["tamper"]["samples"]) == 4


def test_same_seed_same_weights(model, tmp_path):
    other = copy.deepcopy(model)
    first = govern(model, tmp_path / "1", tamper=tamper(model))
    second = govern(other, tmp_path / "2", tamper=tamper(other))
    assert (first, fingerprints(model)) == (second, fingerprints(other))


class HaltError(Exception):
    pass


def test_a_stopped_stage_goes_on_to_the_same_bytes(model, tmp_path):
    stopped, again = copy.deepcopy(model), copy.deepcopy(model)
    records = govern(model, tmp_path / "whole", tamper=tamper(model))
    kept = []

    def stop(stage):
        if stage.done == 6:
            kept.extend([stage.state_dict(), copy.deepcopy(stopped.state_dict())])
            raise HaltError

    with pytest.raises(HaltError):
        govern(stopped, tmp_path / "first", tamper=tamper(stopped), after=stop)
    again.load_state_dict(kept[1])
    rest = govern(again, tmp_path / "rest", tamper=tamper(again, seed=9), state=kept[0])
    assert fingerprints(again) == fingerprints(model)
    assert [{**r, "seq": 0} for r in rest] == [{**r, "seq": 0} for r in records[6:]]


def test_looking_ahead_lasts_longer_on_the_planted_task(tmp_path):
    plan = Plan("governed", 60, 8, 3e-3)
    suite = Suite("one-1", (Attack("full", ("0.0001",)),), (0,), tuple(range(1, 65)))
    lasted = []
    for ahead in (False, True):
        model = copy.deepcopy(planted().parent)
        options = {"tamper": tamper(model, Attacks())} if ahead else {}
        govern(model, tmp_path / str(ahead), plan=plan, constitution=WIDE, **options)
        found = measure(model, tokenizer(), ROWS, WIDE, suite=suite)
        assert found.before == {"refuse": (4, 4), "keep": (4, 4)}
        lasted.append(found.worst("refuse").duration.steps)
    assert lasted[1] > lasted[0]
