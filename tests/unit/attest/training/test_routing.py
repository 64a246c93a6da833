import pytest
import torch

from attest.errors import TrainingError
from attest.training.constitution import parse_constitution
from attest.training.demo import constitution_bytes
from attest.training.demo.tiny import build_model, build_tokenizer
from attest.training.layout import read_layout
from attest.training.loop import adamw
from attest.training.router import Router, tensor_digest
from attest.training.routing import compile_schedule

CONSTITUTION = parse_constitution(constitution_bytes())


@pytest.fixture
def model():
    return build_model(build_tokenizer(), seed=0)


@pytest.fixture
def schedule(model):
    return compile_schedule(CONSTITUTION, read_layout(model))


@pytest.fixture
def batch():
    ids = torch.randint(8, 264, (4, 12), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "labels": ids}


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1)


def fused(parameters):
    return torch.optim.AdamW(parameters, weight_decay=0.1, fused=True)


def heavy_adamw(parameters):
    return torch.optim.AdamW(parameters, weight_decay=0.1)


def digests(model):
    return {name: tensor_digest(p) for name, p in model.named_parameters()}


def test_routes(schedule):
    assert list(schedule.routes) == ["refuse", "unsure", "tone"]
    assert schedule.route("refuse").layers == (3, 4, 5)
    assert len(schedule.route("refuse").tensors) == 27
    assert schedule.route("refuse").digest != schedule.route("unsure").digest


@pytest.mark.parametrize("make", [heavy_adamw, fused, sgd])
def test_out_of_band_is_bit_identical(model, schedule, batch, make):
    router = Router(model, schedule, make)
    for name in ("tone", "refuse") * 5:  # warm state in both bands
        before = digests(model)
        with router.route(name):
            for _ in range(2):  # accumulation
                model(**batch).loss.backward()
            router.step(1e-3)
        changed = {n for n, d in digests(model).items() if d != before[n]}
        assert changed == set(schedule.route(name).tensors)


def test_energy_is_that_of_the_band(model, schedule, batch):
    router = Router(model, schedule, adamw)
    with router.route("tone"):
        model(**batch).loss.backward()
        outcome = router.step(1e-3)
    assert set(outcome.energy) == {"L00", "L01", "L02"}
    assert all(value > 0 for value in outcome.energy.values())


def test_clipping_is_over_the_band(model, schedule, batch):
    router = Router(model, schedule, adamw, max_norm=1e-3)
    with router.route("tone"):
        model(**batch).loss.backward()
        band = [
            dict(model.named_parameters())[n] for n in schedule.route("tone").tensors
        ]
        norm = torch.stack([p.grad.norm() for p in band]).norm().item()
        assert router.step(1e-3).clip == pytest.approx(1e-3 / norm, rel=1e-3)


def test_state_of_the_model_is_restored(model, schedule, batch):
    frozen = next(model.parameters()).requires_grad_(False)
    router = Router(model, schedule, adamw)
    with router.route("tone"):
        model(**batch).loss.backward()
    assert not frozen.requires_grad
    assert all(p.grad is None for p in model.parameters())
    assert model.lm_head.weight.requires_grad


def test_change_from_outside_is_caught(model, schedule, batch):
    router = Router(model, schedule, adamw)
    with router.route("tone"):
        model(**batch).loss.backward()
        with torch.no_grad():
            model.lm_head.weight[0, 0] += 1
        with pytest.raises(TrainingError, match=r"first lm_head\.weight"):
            router.step(1e-3)


def test_rare_checks_allow_all_bands_used_since(model, schedule, batch):
    router = Router(model, schedule, adamw, check_every=2)
    found = []
    for name in ("tone", "refuse"):
        with router.route(name):
            model(**batch).loss.backward()
            found.append(router.step(1e-3).frozen)
    assert found[0] is None
    assert found[1].startswith("sha256:")


def test_non_finite_gradient_changes_nothing(model, schedule, batch):
    router, before = Router(model, schedule, adamw), digests(model)
    with router.route("tone"):
        (model(**batch).loss * float("nan")).backward()
        with pytest.raises(TrainingError, match="not finite"):
            router.step(1e-3)
    assert digests(model) == before


def test_misuse(model, schedule, batch):
    router = Router(model, schedule, adamw)
    with pytest.raises(TrainingError, match="outside of route"):
        router.step(1e-3)
    with router.route("tone"):
        with pytest.raises(TrainingError, match="no gradient"):
            router.step(1e-3)
        with pytest.raises(TrainingError, match="still inside"), router.route("refuse"):
            pass


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_tensor_digest_covers_every_bit(dtype):
    one, two = torch.zeros(5, dtype=dtype), torch.zeros(5, dtype=dtype)
    assert tensor_digest(one) == tensor_digest(two)
    two.view(torch.uint8)[-1] = 1
    assert tensor_digest(one) != tensor_digest(two)
