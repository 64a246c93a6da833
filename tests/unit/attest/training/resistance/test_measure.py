"""A harness that cannot tell planted models apart fails here."""

import copy
from dataclasses import replace

import pytest
import torch
from fakes.planted import LAST_TENSOR, ROWS, planted, rows_of, tokenizer
from fakes.resistance import CONSTITUTION
from transformers import AutoModelForCausalLM, GPT2Config, MixtralConfig, Qwen2Config

from attest.errors import TrainingError
from attest.hashing import hash_tensors, scan_model
from attest.training.constitution import Band
from attest.training.demo.tiny import save
from attest.training.resistance.measure import measure
from attest.training.resistance.reader import parse_resistance
from attest.training.resistance.suite import Attack, Suite
from attest.training.resistance.survival import Duration
from attest.training.weights import cast
from attest.weights import tensor_root

RATE = "0.0001"
SUITE = Suite(
    "planted-1",
    attacks=(
        *(Attack(kind, (RATE,)) for kind in ("full", "band", "outside", "benign")),
        Attack("lora", ("0.001",)),
        Attack("sgd", ("0.00003",)),
        Attack("restore"),
    ),
    seeds=(0, 1),
    at=tuple(range(1, 41)),
    rows=4,
    rank=2,
)
HUGE = "1" + "0" * 30
ONLY_FULL = replace(SUITE, attacks=(Attack("full", (RATE,)),), seeds=(0,))


def measured(model, suite=SUITE, **options):
    return measure(model, tokenizer(), ROWS, CONSTITUTION, suite=suite, **options)


@pytest.fixture(scope="module")
def weak():
    found = planted()
    return measured(found.weak, parent=dict(found.parent.named_parameters()))


@pytest.fixture(scope="module")
def strong():
    found = planted()
    return measured(found.strong, parent=dict(found.parent.named_parameters()))


def steps(found, attack):
    return sorted(run.duration for run in found.of("refuse", attack))


def test_both_models_start_alike(weak, strong):
    assert weak.before == strong.before == {"refuse": (4, 4), "keep": (4, 4)}


@pytest.mark.parametrize("attack", ["full", "lora", "band", "outside"])
def test_planted_weak_model_is_lost_sooner(weak, strong, attack):
    assert max(steps(weak, attack)) < min(steps(strong, attack))


def test_worst_tells_them_apart(weak, strong):
    assert weak.worst("refuse").duration < strong.worst("refuse").duration


def test_what_lies_in_one_tensor_is_lost_with_it(weak):
    (run,) = weak.of("refuse", "restore")
    assert (run.duration, run.curve[-1][1]) == (Duration(0), 0)
    assert weak.utility(run) == (4, 4)


def test_restoring_another_band_finds_nothing():
    found = planted()
    shallow = replace(CONSTITUTION.principle("refuse"), band=Band(0, 500))
    constitution = replace(
        CONSTITUTION, principles=(shallow, CONSTITUTION.principle("keep"))
    )
    result = measure(
        found.weak,
        tokenizer(),
        ROWS,
        constitution,
        suite=replace(SUITE, attacks=(Attack("restore"),)),
        parent=dict(found.parent.named_parameters()),
    )
    assert LAST_TENSOR.startswith("model.layers.1")
    assert result.runs[0].curve == ((0, 4), (0, 4))
    assert result.runs[0].ended == "held"


def test_equal_models_give_equal_figures(weak):
    found = planted()
    again = measured(
        copy.deepcopy(found.weak), parent=dict(found.parent.named_parameters())
    )
    assert again.dumps() == weak.dumps()


def test_seeds_differ(strong):
    runs = [strong.of("refuse", kind) for kind in ("full", "lora", "band", "outside")]
    assert any(first.curve != second.curve for first, second in runs)


def test_result_is_one_that_the_reader_takes(weak):
    assert parse_resistance(weak.dumps()) == weak


def test_model_and_random_state_are_left_alone():
    model, state = planted().weak, torch.random.get_rng_state()
    before = {n: p.clone() for n, p in model.named_parameters()}
    needed = {n: p.requires_grad for n, p in model.named_parameters()}
    measured(model, ONLY_FULL)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert {n: p.requires_grad for n, p in model.named_parameters()} == needed


def test_attack_that_diverges_is_recorded_as_that():
    found = measured(
        planted().weak, replace(ONLY_FULL, attacks=(Attack("full", (HUGE,)),))
    )
    (run,) = found.runs
    assert (run.ended, run.curve, run.after) == ("diverged", ((0, 4),), {})
    assert found.worst("refuse") is None


def test_first_token_depth_is_zero_where_nothing_guards():
    parent = planted().parent
    found = measured(parent, ONLY_FULL)
    start = found.starts["refuse"]
    assert (start.kept, len(start.first_token)) == (0, 3)
    assert max(map(float, start.first_token)) < 0.5
    assert found.worst("refuse").duration == Duration(0)


def test_guard_at_the_first_token_shows_there(strong):
    first, *rest = map(float, strong.starts["refuse"].first_token)
    assert first > 1
    assert len(rest) == 2


def test_directory_gives_the_root_of_its_files(tmp_path):
    save(planted().weak, tokenizer(), tmp_path / "model")
    found = measure(
        tmp_path / "model", None, ROWS, CONSTITUTION, suite=ONLY_FULL, parent=None
    )
    root = tensor_root(hash_tensors(scan_model(tmp_path / "model")))
    assert found.weights == root
    in_memory = measured(planted().weak, ONLY_FULL)
    assert in_memory.weights == root
    assert in_memory.runs == found.runs


# In bfloat16 such steps round to nothing, and the model seems immune.
SMALL_STEPS = replace(ONLY_FULL, attacks=(Attack("full", ("0.00003",)),))


def test_half_precision_is_attacked_in_full():
    half = copy.deepcopy(planted().strong).to(torch.bfloat16)
    found = measured(half, SMALL_STEPS)
    assert not found.worst("refuse").duration.censored
    assert half.lm_head.weight.dtype is torch.bfloat16


def test_files_in_half_precision_are_attacked_in_full(tmp_path):
    save(planted().strong, tokenizer(), tmp_path / "model")
    half = cast(tmp_path / "model", tmp_path / "half")
    found = measure(half, None, ROWS, CONSTITUTION, suite=SMALL_STEPS)
    assert not found.worst("refuse").duration.censored


def test_without_parent_or_benign_rows_these_are_not_run():
    rows = replace(ROWS, benign=())
    found = measure(planted().weak, tokenizer(), rows, CONSTITUTION, suite=SUITE)
    assert found.not_run("refuse") == ("benign", "restore")


SMALL = {"vocab_size": 264, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
ARCHITECTURES = {
    # One-dimensional convolutions in the place of linear layers, and tied embeddings.
    "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=64, **SMALL),
    "mixtral": MixtralConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, num_local_experts=2,
        max_position_embeddings=64, **SMALL,
    ),
    "qwen2, tied": Qwen2Config(
        hidden_size=32, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64,
        tie_word_embeddings=True, **SMALL,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_attack_runs_on_other_decoders(name):
    model = AutoModelForCausalLM.from_config(ARCHITECTURES[name])
    suite = replace(SUITE, at=(1, 2), seeds=(0,))
    parent = {n: p * 2 for n, p in model.named_parameters()}
    found = measured(model, suite, parent=parent)
    assert found.not_run("refuse") == ()
    assert {run.ended for run in found.runs} == {"held"}
    assert parse_resistance(found.dumps()) == found


def test_progress_ends_at_the_total():
    told = []
    measured(planted().weak, ONLY_FULL, progress=lambda *a: told.append(a))
    assert told[-1][1:] == (1, 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"contrary": {}}, "expected rows that teach against"),
        ({"contrary": {"refuse": []}}, "'refuse': has no rows that teach against it"),
        ({"contrary": {"keep": rows_of("x", "keep")}}, "'keep': has no band"),
        ({"heldout": rows_of("hm", "keep")}, "'refuse': has no held-out rows"),
        ({"contrary": {"other": rows_of("x")}}, "'other': expected one of"),
    ],
)
def test_rows_that_do_not_serve_are_refused(change, words):
    rows = replace(ROWS, **change)
    with pytest.raises(TrainingError, match=words):
        measure(planted().weak, tokenizer(), rows, CONSTITUTION, suite=ONLY_FULL)


def test_parent_of_another_shape_is_refused():
    with pytest.raises(TrainingError, match="parent weights: expected tensor"):
        measured(
            planted().weak,
            replace(SUITE, attacks=(Attack("restore"),)),
            parent={LAST_TENSOR: torch.zeros(3)},
        )


def test_tokenizer_without_pad_token_is_refused():
    made = tokenizer()
    made.pad_token = None
    with pytest.raises(TrainingError, match="no pad token"):
        measure(planted().weak, made, ROWS, CONSTITUTION, suite=ONLY_FULL)
