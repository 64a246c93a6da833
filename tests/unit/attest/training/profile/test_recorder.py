from itertools import pairwise

import pytest
import torch
import torch.distributed as dist
from fakes.profiled import World, rows
from fakes.training import micro_model
from peft import LoraConfig, get_peft_model
from torch.nn.parallel import DistributedDataParallel

from attest.errors import ProfileError
from attest.training.confinement import digests
from attest.training.layout import read_layout
from attest.training.mechanism import named_parameters
from attest.training.profile.lca import UNROUTED, ProfileRecorder
from attest.training.profile.probe import make_probes


def bits(model):
    return digests(named_parameters(model))


def step(world, recorder, change, principle=None):
    """One step that does nothing but `change`."""
    recorder.before(principle)
    with torch.no_grad():
        change(dict(world.model.named_parameters()))
    return recorder.after(principle)


def descend(world, *units, lr=0.05):
    """A plain gradient step of the named units on the first probe."""

    def change(parameters):
        with torch.enable_grad():
            loss = world.model(**world.probes[0].whole).loss
            names = [n for n in parameters if world.layout.units[n] in units]
            found = torch.autograd.grad(loss, [parameters[n] for n in names])
        for name, gradient in zip(names, found, strict=True):
            parameters[name] -= lr * gradient

    return change


# --- it only watches --------------------------------------------------------------


def test_training_with_a_recorder_gives_the_same_bits(world):
    world.govern(steps=9)
    alone = bits(world.model)
    recorder = world.reset().recorder()
    world.govern(recorder, steps=9)
    recorder.result("governed")
    assert bits(world.model) == alone


def test_model_and_random_state_are_as_they_were(world):
    world.model.model.layers[1].eval()
    world.model.model.norm.requires_grad_(requires_grad=False)
    world.model.lm_head.weight.grad = torch.ones_like(world.model.lm_head.weight)
    modes = [module.training for module in world.model.modules()]
    flags = [p.requires_grad for p in world.model.parameters()]
    random = torch.get_rng_state()
    recorder = world.recorder()
    for _ in range(3):
        assert step(world, recorder, descend(world, "L01")) == {}
    recorder.result("x")
    assert [module.training for module in world.model.modules()] == modes
    assert [p.requires_grad for p in world.model.parameters()] == flags
    assert torch.equal(torch.get_rng_state(), random)
    others = [p.grad for n, p in world.model.named_parameters() if "lm_head" not in n]
    assert not any(grad is not None for grad in others)
    assert bool((world.model.lm_head.weight.grad == 1).all())


def test_a_model_that_draws_random_numbers_draws_the_same_ones(world):
    random = torch.get_rng_state()
    norm = world.model.model.norm

    def draw(_module, _given, _found):
        torch.rand(1)

    hook = norm.register_forward_hook(draw)
    try:
        recorder = world.recorder()
        step(world, recorder, lambda _parameters: None)
        recorder.result("x")
    finally:
        hook.remove()
    assert torch.equal(torch.get_rng_state(), random)


def test_a_probe_keeps_no_keys_and_values_and_training_does_as_before(world):
    kept = []

    def look(_module, _given, found):
        kept.append((world.model.training, found.past_key_values is not None))

    config = world.model.config
    config.use_cache = True
    hook = world.model.model.register_forward_hook(look)
    try:
        step(world, world.recorder(every=1), descend(world, "L01"))
    finally:
        hook.remove()
    assert set(kept) == {(False, False), (True, True)}
    assert config.use_cache is True


def test_a_loss_that_is_not_finite_stops_the_run_with_the_weights_as_they_are(world):
    recorder = world.recorder(every=1)

    def poison(parameters):
        parameters["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan

    with pytest.raises(ProfileError, match="the loss is nan"):
        step(world, recorder, poison)
    changed = {n for n, p in world.model.named_parameters() if p.isnan().any()}
    assert changed == {"model.layers.1.mlp.up_proj.weight"}
    assert world.model.training


# --- what it finds ----------------------------------------------------------------


@pytest.mark.parametrize(("a", "b"), [(1, 2), (3, 0)])
def test_planted_layers_are_found(a, b):
    world = World(a=(a,), b=(b,))
    recorder = world.recorder()
    world.govern(recorder, steps=60)
    found = recorder.result("governed", seed=0)
    assert (found.stage, found.seed, found.steps, found.blocks) == (
        "governed",
        0,
        60,
        4,
    )
    for name, layer in (("a", a), ("b", b)):
        profile = found.profile(name)
        assert profile.drop > 2_000_000
        assert profile.layers[layer] > 900_000
        assert profile.in_band > 0.9
        assert profile.residual < 0.05
        assert profile.valid
        assert profile.by_source.keys() == {"a", "b"}
        assert profile.by_source[name] > 0.8 * profile.drop


def test_the_profile_of_an_unrouted_run_is_not_the_routing_table(world):
    recorder = world.recorder()
    world.unrouted(recorder, steps=20, lr=3e-3)
    for name in ("a", "b"):
        profile = recorder.result("free").profile(name)
        assert profile.in_band < 0.6
        assert profile.entropy_normalised > 0.8
        assert profile.outside > 0
        assert profile.residual < 0.05
        assert profile.by_source.keys() == {UNROUTED}


def test_energy_misleads_where_the_profile_does_not(world):
    """A large movement that changes no answer took up nothing."""
    dead = "model.layers.3.mlp."
    with torch.no_grad():
        world.model.get_parameter(dead + "down_proj.weight").zero_()
    before = {n: p.detach().clone() for n, p in world.model.named_parameters()}
    recorder = world.recorder()

    def stir(parameters):
        descend(world, "L01")(parameters)
        weight = parameters[dead + "gate_proj.weight"]
        weight += torch.randn(weight.shape, generator=generator)

    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        step(world, recorder, stir)
    energy = dict.fromkeys(world.layout.units.values(), 0.0)
    for name, parameter in world.model.named_parameters():
        energy[world.layout.units[name]] += float(
            (parameter.detach() - before[name]).square().sum()
        )
    assert energy["L03"] > 100 * energy["L01"]
    assert recorder.result("x").profile("a").layers[1] == 1_000_000


def test_steps_that_harm_count_against(world):
    recorder = world.recorder()
    for _ in range(4):
        step(world, recorder, descend(world, "L01"), "a")
    for _ in range(2):
        step(world, recorder, descend(world, "L02", lr=-0.05), "b")
    found = recorder.result("x").profile("a")
    assert found.by_source["a"] > 0 > found.by_source["b"]
    assert found.allocated[1] > 0 > found.allocated[2]
    assert found.negative_share > 0
    assert found.layers[1] == 1_000_000


def test_what_changes_between_two_steps_is_missing(world):
    recorder = world.recorder()
    step(world, recorder, descend(world, "L01"), "a")
    with torch.no_grad():
        for _ in range(20):
            descend(world, "L02")(dict(world.model.named_parameters()))
    step(world, recorder, descend(world, "L01"), "a")
    found = recorder.result("x").profile("a")
    assert found.residual > 0.5
    assert not found.valid


def test_a_step_without_effect(world):
    recorder = world.recorder()
    step(world, recorder, lambda _parameters: None, "a")
    found = recorder.result("x").profile("a")
    assert (found.drop, found.valid, found.allocated) == (0, False, (0, 0, 0, 0))


def test_recording_can_go_on_after_a_result(world):
    recorder = world.recorder()
    step(world, recorder, descend(world, "L01", lr=0.01), "a")
    first = recorder.result("x")
    step(world, recorder, descend(world, "L01", lr=0.01), "a")
    second = recorder.result("x")
    assert (first.steps, second.steps) == (1, 2)
    assert second.profile("a").drop > first.profile("a").drop


@pytest.mark.parametrize("events", [True, False])
def test_a_recorder_that_was_stopped_goes_on(world, tmp_path, events):
    def walk(recorder, steps):
        for number in steps:
            unit = "L01" if number % 2 else "L02"
            step(world, recorder, descend(world, unit, lr=1e-3), "ab"[number % 2])

    whole = world.recorder(events=events)
    walk(whole, range(12))
    world.reset()
    first = world.recorder(events=events)
    walk(first, range(7))
    assert first.state_dict()["gap"]["steps"] > 0
    torch.save(first.state_dict(), tmp_path / "state")
    second = world.recorder(events=events)
    second.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    walk(second, range(7, 12))
    assert second.result("x") == whole.result("x")


# --- events -----------------------------------------------------------------------


@pytest.fixture
def both_ways(world):
    found = []
    for events in (True, False):
        recorder = world.reset().recorder(events=events, every=4)
        world.govern(recorder, steps=12)
        found.append(recorder.result("governed"))
    return found


def test_every_step_is_an_event(both_ways):
    found = both_ways[0]
    assert [event.step for event in found.events] == list(range(12))
    layers = {"a": {"L01"}, "b": {"L02"}}
    for event in found.events:
        for name in ("a", "b"):
            assert event.amounts[name].keys() == layers[event.source]


def test_events_sum_to_what_their_sources_did(both_ways):
    found = both_ways[0]
    for name in ("a", "b"):
        whole = found.profile(name).by_source
        for source in ("a", "b"):
            amounts = [e.amounts[name] for e in found.events if e.source == source]
            total = sum(sum(by_unit.values()) for by_unit in amounts)
            assert total / 1000 == pytest.approx(whole[source], abs=2)


def test_without_events_the_profile_is_the_same(both_ways):
    whole, merged = both_ways
    assert merged.events == ()
    for name in ("a", "b"):
        ours, theirs = whole.profile(name), merged.profile(name)
        assert ours.allocated == pytest.approx(theirs.allocated, abs=200)
        assert ours.layers == pytest.approx(theirs.layers, abs=200)


def test_lines_grow_while_they_are_easy(world):
    recorder = world.recorder(every=6)
    for _ in range(30):
        step(world, recorder, descend(world, "L01", lr=1e-4), "a")
    samples = sorted(recorder.result("x").curve)
    lengths = [b - a for a, b in pairwise(samples)]
    assert lengths[:-1] == [4, *[6] * 4]
    assert samples[-1] == 30


# --- kinds of models --------------------------------------------------------------


def test_bfloat16_weights_count_what_was_applied(world):
    model = micro_model(layers=4)
    model.load_state_dict(world.parent)
    world_of = World.__new__(World)
    world_of.__dict__ |= world.__dict__ | {"model": model.to(torch.bfloat16)}
    recorder = world_of.recorder()
    world_of.govern(recorder, steps=17)
    [[_, _, change], *_] = recorder.state_dict()["gap"]["moves"]
    assert {tensor.dtype for tensor in change.values()} == {torch.float32}
    world_of.govern(recorder, steps=3)
    found = recorder.result("governed").profile("a")
    assert found.in_band > 0.8
    assert found.residual < 0.05


def test_adapters_count_in_their_layer(world):
    model = micro_model(layers=4)
    model.load_state_dict(world.parent)
    adapted = get_peft_model(
        model, LoraConfig(r=4, target_modules=["down_proj"], layers_to_transform=[2])
    )
    layout = read_layout(adapted)
    recorder = ProfileRecorder(adapted, world.probes, layout)
    trained = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    for _ in range(20):
        adapted(**world.probes[0].whole).loss.backward()
        recorder.before("a")
        optimizer.step()
        recorder.after("a")
        optimizer.zero_grad()
    found = recorder.result("adapted").profile("a")
    assert found.layers == (0, 0, 1_000_000, 0)
    assert found.residual < 0.05


def test_tied_weights_are_outside_the_blocks(world):
    model = micro_model(layers=4, tied=True)
    layout = read_layout(model)
    recorder = ProfileRecorder(model, world.probes, layout)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        model(**world.probes[0].whole).loss.backward()
        recorder.before(None)
        optimizer.step()
        recorder.after(None)
        optimizer.zero_grad()
    found = recorder.result("x")
    assert found.units == ("L00", "L01", "L02", "L03", "head", "tied")
    assert found.profile("a").outside > 0
    assert found.profile("a").valid


# Importing the compiler warns of parts of torch that it still has.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_nothing_is_compiled_for_a_probe(world):
    recorder = ProfileRecorder(torch.compile(world.model), world.probes, world.layout)
    step(world, recorder, descend(world, "L01"), "a")
    assert recorder.result("x").profile("a").valid


def test_one_rank_can_record_what_several_train(world, tmp_path):
    """The probes go round the wrapper, which expects a backward of each forward."""
    store = f"file://{tmp_path}/store"
    dist.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(world.model)
        recorder = ProfileRecorder(wrapped, world.probes, world.layout, every=2)
        optimizer = torch.optim.SGD(world.model.parameters(), lr=0.01)
        for _ in range(4):
            wrapped(**world.probes[0].whole).loss.backward()
            recorder.before(None)
            optimizer.step()
            recorder.after(None)
            optimizer.zero_grad()
        assert recorder.result("x").profile("a").valid
    finally:
        dist.destroy_process_group()


def test_sharded_weights_are_refused(world):
    parameter = world.model.lm_head.weight
    parameter.to_local = lambda: parameter
    try:
        with pytest.raises(ProfileError, match=r"lm_head\.weight is sharded"):
            world.recorder()
    finally:
        del parameter.to_local


# --- bad input --------------------------------------------------------------------


def test_no_probes(world):
    with pytest.raises(ProfileError, match="at least one probe"):
        ProfileRecorder(world.model, [], world.layout)


def test_a_recorder_that_saw_nothing(world):
    with pytest.raises(ProfileError, match="no step was recorded") as caught:
        world.recorder().result("governed")
    assert "observers" in caught.value.hint


def test_too_few_rows_for_a_probe(world):
    held = rows("governed", count=3)
    with pytest.raises(ProfileError, match="at least 4 held-out rows, found 3"):
        make_probes(held, world.schedule, pad=0)


def test_probes_are_told_apart_by_their_rows(world):
    first, other = world.probes[0], world.probes_of(count=8)[0]
    assert first.digest != other.digest
    assert (first.rows, len(first.chunks), sum(first.weights)) == (12, 4, 36)
    assert first.band == (1,)
