import contextlib
from dataclasses import dataclass

import pytest
import torch
from fakes.training import (
    OVERLAPPING,
    changed,
    fingerprints,
    micro_model,
    schedule_of,
    token_batch,
)
from peft import LoraConfig, get_peft_model
from torch.nn.parallel import DataParallel

from attest.errors import TrainingError
from attest.training.confinement import ConfinementError, checksums
from attest.training.mechanism import choose_mechanism
from attest.training.router import NonFiniteError, Router

BATCH = token_batch(rows=2, length=8)
STEPS = 20


def adamw(parameters):
    return torch.optim.AdamW(parameters, weight_decay=0.1)


def fused_adamw(parameters):
    return torch.optim.AdamW(parameters, weight_decay=0.1, fused=True)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1)


@dataclass(frozen=True)
class Setting:
    """How the model is made, and how its forward runs."""

    tied: bool = False
    lora: bool = False
    autocast: bool = False
    half: bool = False
    checkpointing: bool | None = None  # whether it is reentrant

    def model(self):
        model = micro_model(tied=self.tied)
        if self.half:
            model = model.to(torch.bfloat16)
        if self.lora:
            model = get_peft_model(
                model,
                LoraConfig(
                    r=4, target_modules=["q_proj", "down_proj"], lora_dropout=0.0
                ),
            )
        if self.checkpointing is not None:
            model.gradient_checkpointing_enable({"use_reentrant": self.checkpointing})
            if self.lora:
                model.enable_input_require_grads()
        return model

    def backward(self, model):
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=self.autocast)
        with autocast:
            loss = model(**BATCH).loss
        loss.backward()


SETTINGS = {
    "plain": Setting(),
    "autocast": Setting(autocast=True),
    "bf16-weights": Setting(half=True),
    "checkpointing": Setting(checkpointing=False),
    "checkpointing-reentrant": Setting(checkpointing=True),
    "tied": Setting(tied=True),
    "lora": Setting(lora=True),
    "lora-checkpointing": Setting(lora=True, checkpointing=False),
    "all": Setting(tied=True, lora=True, autocast=True, checkpointing=False),
}


def moves(model, train, principles=("deep", "shallow")):
    """What `STEPS` steps of each principle change, when the others' state is warm.

    Returns pairs of a principle and the names of changed tensors.
    """
    for principle in principles * 2:
        train(principle)
    for principle in principles:
        before = fingerprints(model)
        for _ in range(STEPS):
            train(principle)
        yield principle, changed(before, model)


# Reentrant checkpointing is always cleared: see below.
CASES = [
    (name, accumulation, mechanism)
    for name, setting in SETTINGS.items()
    for accumulation in ((1, 2) if name == "plain" else (2,))
    for mechanism in (("clear",) if setting.checkpointing else ("toggle", "clear"))
]


@pytest.mark.parametrize(("name", "accumulation", "mechanism"), CASES)
@pytest.mark.parametrize("make", [adamw, fused_adamw, sgd])
def test_out_of_band_is_bit_identical(name, accumulation, mechanism, make):
    setting = SETTINGS[name]
    model = setting.model()
    schedule = schedule_of(model, OVERLAPPING)
    router = Router(
        model, schedule, make, mechanism=mechanism, max_norm=0.1, check_every=100
    )

    def train(principle):
        with router.route(principle):
            for _ in range(accumulation):
                setting.backward(model)
            router.step(1e-3)

    for principle, moved in moves(model, train):
        still = set(router.trained(principle)) - moved
        assert moved <= set(schedule.route(principle).tensors)
        assert moved <= set(router.trained(principle))
        # bf16 rounds small updates away.
        assert moved if setting.half else not still


# --- the same check sees what is wrong ----------------------------------------------


def zeroed(model, schedule):
    """One optimizer, and gradients outside the band multiplied by zero."""
    optimizer = adamw(list(model.parameters()))

    def train(principle):
        band = set(schedule.route(principle).tensors)
        model(**BATCH).loss.backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                parameter.grad *= float(name in band)
        optimizer.step()
        optimizer.zero_grad()

    return train


def shared(model, schedule):
    """Requires_grad is toggled, and one optimizer keeps zero gradients of all."""
    optimizer = adamw(list(model.parameters()))

    def train(principle):
        band = set(schedule.route(principle).tensors)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in band)
        model(**BATCH).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    return train


@pytest.mark.parametrize("wrong", [zeroed, shared])
def test_known_wrong_ways_are_not_confined(wrong):
    model = micro_model()
    schedule = schedule_of(model, OVERLAPPING)
    outside = [
        moved - set(schedule.route(principle).tensors)
        for principle, moved in moves(model, wrong(model, schedule))
    ]
    assert all(outside)


@pytest.mark.parametrize("wrong", [zeroed, shared])
@pytest.mark.parametrize("check_every", [1, 1000])
def test_the_router_sees_a_wrong_way(wrong, check_every):
    """Somebody else's optimizer that steps between two routes."""
    model = micro_model()
    schedule = schedule_of(model, OVERLAPPING)
    router = Router(model, schedule, adamw, check_every=check_every)
    others = wrong(model, schedule)
    with router.route("deep"):
        model(**BATCH).loss.backward()
        router.step(1e-3)
    others("shallow")
    others("deep")
    model.requires_grad_(True)
    with router.route("deep"):
        model(**BATCH).loss.backward()
        with pytest.raises(ConfinementError):
            router.step(1e-3)


# --- state and gradients -------------------------------------------------------------


def test_toggle_and_clear_train_alike():
    models = {name: micro_model() for name in ("toggle", "clear")}
    for mechanism, model in models.items():
        router = Router(
            model, schedule_of(model, OVERLAPPING), adamw, mechanism=mechanism
        )
        for principle in ("deep", "shallow", "middle") * 3:
            with router.route(principle):
                model(**BATCH).loss.backward()
                router.step(1e-3)
    assert fingerprints(models["toggle"]) == fingerprints(models["clear"])


def test_toggle_computes_no_other_gradient():
    model = micro_model()
    router = Router(model, schedule_of(model, OVERLAPPING), adamw)
    with router.route("shallow"):
        model(**BATCH).loss.backward()
        found = {n for n, p in model.named_parameters() if p.grad is not None}
    assert found == set(router.trained("shallow"))


def test_clear_drops_every_other_gradient_before_the_step():
    model = micro_model()
    router = Router(model, schedule_of(model, OVERLAPPING), adamw, mechanism="clear")
    with router.route("shallow"):
        model(**BATCH).loss.backward()
        assert model.lm_head.weight.grad is not None
        router.norm()
        found = {n for n, p in model.named_parameters() if p.grad is not None}
    assert found == set(router.trained("shallow"))


def test_every_route_has_its_own_state():
    """A step for one band leaves the moments that another one has of shared tensors."""
    model = micro_model()
    router = Router(model, schedule_of(model, OVERLAPPING), adamw)
    for principle, steps in (("deep", 3), ("shallow", 5)):
        for _ in range(steps):
            with router.route(principle):
                model(**BATCH).loss.backward()
                router.step(1e-3)
    counts = [
        {int(s["step"]) for s in o["state"].values()}
        for o in router.state_dict()["optimizers"].values()
    ]
    assert counts == [{3}, {5}]


def test_accumulated_gradient_is_the_sum():
    model = micro_model()
    reference = micro_model()
    (reference(**BATCH).loss * 2).backward()
    router = Router(model, schedule_of(model, OVERLAPPING), adamw, max_norm=None)
    with router.route("deep"):
        model(**BATCH).loss.backward()
        model(**BATCH).loss.backward()
        norm = router.norm()
        gradients = dict(reference.named_parameters())
        wanted = torch.stack([gradients[n].grad.norm() for n in router.trained("deep")])
    assert norm == pytest.approx(float(wanted.norm()), rel=1e-5)


@pytest.mark.parametrize("max_norm", [1e-3, 1e3, None])
def test_clipping_factor(max_norm):
    model = micro_model()
    router = Router(model, schedule_of(model, OVERLAPPING), sgd, max_norm=max_norm)
    with router.route("deep"):
        model(**BATCH).loss.backward()
        norm = router.norm()
        clip = router.step(1e-3).clip
    expected = min(1.0, 1e-3 / norm) if max_norm == 1e-3 else 1.0
    assert clip == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("half", [False, True])
def test_energy_is_the_applied_change(half):
    model = Setting(half=half).model()
    router = Router(model, schedule_of(model, OVERLAPPING), adamw)
    old = {n: p.detach().double().clone() for n, p in model.named_parameters()}
    with router.route("shallow"):
        model(**BATCH).loss.backward()
        energy = router.step(1e-2).energy
    for unit, value in energy.items():
        wanted = sum(
            float((p.detach().double() - old[n]).square().sum())
            for n, p in model.named_parameters()
            if router.schedule.layout.units[n] == unit
        )
        assert value == pytest.approx(wanted, rel=1e-4)
    assert sorted(energy) == ["L00", "L01"]


# --- checks now and then -------------------------------------------------------------


def test_check_steps_hash_what_other_routes_changed():
    """Even where all bands were used since the last one, the step's outside is seen."""
    model = micro_model()
    router = Router(model, schedule_of(model, OVERLAPPING), adamw, check_every=3)
    for number in range(1, 7):
        with router.route("deep" if number % 2 else "shallow"):
            model(**BATCH).loss.backward()
            if number == 6:
                with torch.no_grad():  # in the deep band alone, within a shallow step
                    model.model.layers[2].mlp.up_proj.weight[0, 0] += 1
                with pytest.raises(ConfinementError, match=r"layers\.2\.mlp\.up_proj"):
                    router.step(1e-3)
            else:
                outcome = router.step(1e-3)
                assert (outcome.frozen is None) == (number != 3)
                assert (outcome.guarded > 0) == (number != 3)


def test_a_change_between_two_steps_is_caught_by_the_guard():
    model = micro_model()
    router = Router(model, schedule_of(model, OVERLAPPING), adamw, check_every=100)
    for poke in (False, True):
        with torch.no_grad():
            model.lm_head.weight[0, 0] += poke
        with router.route("deep"):
            model(**BATCH).loss.backward()
            with pytest.raises(ConfinementError) if poke else contextlib.nullcontext():
                router.step(1e-3)


def test_last_check_sees_what_no_step_may_change():
    model = micro_model()
    router = Router(model, schedule_of(model, OVERLAPPING), adamw, check_every=100)
    router.check()
    with torch.no_grad():
        model.model.norm.weight.data[0] = 7
    with pytest.raises(ConfinementError, match=r"first model\.norm\.weight"):
        router.check()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("size", [1, 7, 8, 9, 64])
def test_checksum_sees_every_single_bit(dtype, size):
    one = torch.zeros(size, dtype=dtype)
    for byte in range(size * one.element_size()):
        two = one.clone()
        two.view(torch.uint8)[byte] = 1
        assert checksums({"a": one}) != checksums({"a": two})


# --- errors ---------------------------------------------------------------------------


def test_non_finite_gradient_changes_nothing():
    model = micro_model()
    router, before = Router(model, schedule_of(model, OVERLAPPING), adamw), None
    before = fingerprints(model)
    with router.route("deep"):
        (model(**BATCH).loss * float("inf")).backward()
        with pytest.raises(NonFiniteError, match="not finite"):
            router.step(1e-3)
    assert fingerprints(model) == before
    with router.route("deep"):  # and the run could go on
        model(**BATCH).loss.backward()
        router.step(1e-3)
    assert router.steps == 1


def test_schedule_of_another_model():
    with pytest.raises(TrainingError, match="which this model lacks"):
        Router(micro_model(layers=2), schedule_of(micro_model(), OVERLAPPING), adamw)


def test_band_that_is_frozen():
    model = micro_model()
    schedule = schedule_of(model, OVERLAPPING)
    model.model.layers.requires_grad_(False)
    router = Router(model, schedule, adamw)
    with (
        pytest.raises(TrainingError, match="no tensor in the band of 'deep'"),
        router.route("deep"),
    ):
        pass


def test_reentrant_checkpointing_is_cleared():
    assert choose_mechanism(Setting(checkpointing=True).model()) == "clear"
    assert choose_mechanism(Setting(checkpointing=False).model()) == "toggle"


def wrapped(name, module, **members):
    kind = type(name, (torch.nn.Module,), {"__module__": module})
    outer = kind()
    outer.inner = micro_model()
    for key, value in members.items():
        setattr(outer.inner.lm_head.weight, key, value)
    return outer


@pytest.mark.parametrize(
    ("model", "word"),
    [
        (lambda: wrapped("DeepSpeedEngine", "deepspeed.runtime.engine"), "DeepSpeed"),
        (lambda: wrapped("X", "y", ds_id=3), "ZeRO"),
        (lambda: wrapped("FullyShardedDataParallel", "torch.x"), "FSDP1"),
        (lambda: DataParallel(micro_model()), "DataParallel"),
    ],
)
def test_wrappers_that_cannot_be_governed(model, word):
    with pytest.raises(TrainingError, match=word):
        choose_mechanism(model())
