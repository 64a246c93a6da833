import copy
import math

import pytest
import torch
from fakes.planted import planted, rows_of, tokenizer

from attest.errors import TrainingError
from attest.training.batches import collate, encode
from attest.training.demo.tiny import save
from attest.training.finetune import finetune, tune

EXAMPLES = [encode(tokenizer(), row) for row in rows_of("ok")]


@pytest.fixture
def model():
    return copy.deepcopy(planted().strong)


def gradients(model):
    model = copy.deepcopy(model)
    model(**collate(EXAMPLES, pad=0).tensors).loss.backward()
    return [p.grad for p in model.parameters()]


def one_step(model, **options):
    before = [p.detach().clone() for p in model.parameters()]
    loss = next(tune(model, EXAMPLES, rows=8, pad=0, **options))
    changes = [p.detach() - b for p, b in zip(model.parameters(), before, strict=True)]
    return loss, changes


def test_sgd_moves_weights_by_the_gradient(model):
    expected = gradients(model)
    _, changes = one_step(model, rate=1e-3, momentum=0.9)
    for change, gradient in zip(changes, expected, strict=True):
        torch.testing.assert_close(change, -1e-3 * gradient, rtol=1e-3, atol=1e-7)


def test_adam_moves_every_weight_by_its_rate(model):
    expected = gradients(model)
    _, changes = one_step(model, rate=1e-3)
    for change, gradient in zip(changes, expected, strict=True):
        large = gradient.abs() > 1e-5
        torch.testing.assert_close(
            change[large], -1e-3 * gradient[large].sign(), rtol=1e-2, atol=1e-6
        )


def test_loss_is_that_before_the_step(model):
    with torch.no_grad():
        expected = model(**collate(EXAMPLES, pad=0).tensors).loss.item()
    assert one_step(model, rate=1e-3)[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("momentum", [None, 0.9])
def test_step_that_is_not_finite_is_not_applied(model, momentum):
    kept = []
    for loss in tune(model, EXAMPLES, rate=1e30, rows=8, pad=0, momentum=momentum):
        if math.isnan(loss):
            break
        kept = [p.detach().clone() for p in model.parameters()]
    assert kept
    assert all(map(torch.equal, model.parameters(), kept))


def test_frozen_tensors_stay(model):
    model.lm_head.weight.requires_grad_(False)
    before = model.lm_head.weight.clone()
    next(tune(model, EXAMPLES, rate=1e-3, rows=8, pad=0))
    assert torch.equal(model.lm_head.weight, before)


@pytest.mark.parametrize(
    ("examples", "words"), [([], "expected rows"), (EXAMPLES, "tensors to train")]
)
def test_nothing_to_tune_is_refused(model, examples, words):
    model.requires_grad_(not examples)
    with pytest.raises(TrainingError, match=words):
        next(tune(model, examples, rate=1e-3, rows=8, pad=0))


def test_fine_tuning_that_diverges_writes_nothing(model, tmp_path):
    save(model, tokenizer(), tmp_path / "model")
    with pytest.raises(TrainingError, match="the loss is nan"):
        finetune(tmp_path / "model", tmp_path / "out", rows=rows_of("ok"), lr=1e30)
    assert not (tmp_path / "out").exists()
