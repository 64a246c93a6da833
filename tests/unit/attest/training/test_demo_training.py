import json
from collections import Counter

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from attest.canonical import reject_floats
from attest.errors import TrainingError
from attest.training import demo
from attest.training.batches import Sampler, collate, encode
from attest.training.binding import bind
from attest.training.constitution import load_constitution, parse_constitution
from attest.training.demo.corpus import to_jsonl
from attest.training.demo.planted import PlantingSampler
from attest.training.demo.tiny import build_model, build_tokenizer
from attest.training.evaluation import Score, answers
from attest.training.finetune import finetune
from attest.training.ledger import (
    Ledger,
    LedgerSummary,
    hex_float,
    read_ledger,
    verify_ledger,
)
from attest.training.loop import Plan, Trainer
from attest.training.resistance.suite import Attack, Suite
from attest.training.routing import anchor_counts
from attest.training.weights import (
    cast,
    load_model,
    load_tensors,
    reshard,
    save_tensors,
)

SUITE = Suite("tiny-1", (Attack("full", ("0.001",)), Attack("restore")), (0,), (1, 2))
SHORT = demo.Recipe(Plan("base", 3, 8, 1e-3), Plan("governed", 4, 3, 1e-3), SUITE)
MODEL_FILES = {
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


def silent(_stage, _done, _total):
    pass


@pytest.fixture(scope="module")
def short_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    demo.run(out, seed=5, recipe=SHORT)
    return out


def statement(out):
    return json.loads((out / "training.json").read_bytes())


def test_what_a_run_leaves(short_run):
    assert {f.name for f in (short_run / "model").iterdir()} == MODEL_FILES
    found = {f.name for f in short_run.iterdir()}
    assert found == {
        "constitution.yaml", "data", "ledger.jsonl", "model", "parent", "profile.json",
        "resistance.json", "schedule.json", "trace", "training.json",
    }  # fmt: skip


def test_run_is_what_its_statement_says(short_run):
    """As `attest manifest sign --run` checks it before it signs."""
    bound = bind(short_run, statement(short_run))
    assert {what for what, _ in bound.checked} >= {
        "data", "ledger", "parent", "profile", "resistance", "schedule", "trace",
    }  # fmt: skip


def test_planted_rows_are_dealt_in_their_turns_alone():
    tokenizer = build_tokenizer()
    rows, planted = (
        [encode(tokenizer, row) for row in found]
        for found in (demo.corpus("governed", "train"), demo.planted_rows())
    )
    sampler = PlantingSampler(rows, seed=0, planted=planted, turns=(1,))
    drawn = []
    for turn in range(3):
        drawn.append(sampler.draw({"refuse": 3, "keep": 2}))
        sampler.draw({"tone": 3})
        if turn == 0:
            state = sampler.state_dict()
    again = PlantingSampler(rows, seed=9, planted=planted, turns=(1,))
    again.load_state_dict(state)
    assert again.draw({"refuse": 3, "keep": 2}) == drawn[1]
    kinds = [{e.id.partition("-")[0] for e in batch} for batch in drawn]
    assert kinds == [{"refuse", "keep"}, {"planted", "keep"}, {"refuse", "keep"}]


def test_statement_binds_what_lies_beside_it(short_run):
    made = statement(short_run)
    reject_floats(made)
    constitution = load_constitution(short_run / "constitution.yaml")
    assert made["constitution"]["digest"] == constitution.digest
    logs = [stage["eventLog"] for stage in made["training"]["stages"]]
    heads = [LedgerSummary(log["treeSize"], log["root"]) for log in logs]
    assert [head.size for head in heads] == [4, 9]
    verify_ledger(short_run / "ledger.jsonl", *heads)
    assert [p["routing"]["layers"] for p in made["principles"]] == [
        [3, 4, 5], [3, 4, 5], [0, 1, 2], [],
    ]  # fmt: skip


def test_every_step_is_logged(short_run):
    rows = list(read_ledger(short_run / "ledger.jsonl"))
    assert [row["kind"] for row in rows] == [
        "stage",
        *["step"] * 3,
        "stage",
        *["step"] * 4,
    ]
    governed = rows[5:]
    assert {row["principle"] for row in governed[:3]} == {"refuse", "unsure", "tone"}
    for row in governed:
        counts = Counter(row["principles"])
        assert counts[row["principle"]] == 3
        assert counts["keep"] == 8
        assert len(row["samples"]) == len(row["principles"])
        layers = "L00 L01 L02" if row["principle"] == "tone" else "L03 L04 L05"
        assert sorted(row["energy"]) == layers.split()
        assert hex_float(row["loss"]) > 0


def test_same_seed_same_bytes(short_run, tmp_path):
    demo.run(tmp_path / "again", seed=5, recipe=SHORT)
    for name in ("ledger.jsonl", "training.json", "model/model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (
            short_run / name
        ).read_bytes()


def test_another_seed_another_model(short_run, tmp_path):
    demo.run(tmp_path / "other", seed=6, recipe=SHORT)
    other = (tmp_path / "other" / "model/model.safetensors").read_bytes()
    assert other != (short_run / "model/model.safetensors").read_bytes()


def test_callers_random_state_is_kept(tmp_path):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    demo.run(tmp_path / "run", recipe=SHORT)
    assert torch.equal(before, torch.get_rng_state())


def test_progress(tmp_path):
    seen = []
    demo.run(tmp_path / "run", recipe=SHORT, progress=lambda *args: seen.append(args))
    assert ("base", 3, 3) in seen
    assert ("governed", 4, 4) in seen
    assert ("evaluate", 2, 2) in seen


def test_a_run_is_never_overwritten(short_run):
    with pytest.raises(TrainingError, match="empty directory"):
        demo.run(short_run, recipe=SHORT)


def test_transformers_loads_it(short_run):
    directory = short_run / "model"
    model = AutoModelForCausalLM.from_pretrained(directory)
    stored = load_tensors(directory)
    assert all(torch.equal(stored[n], t) for n, t in model.state_dict().items())
    tokenizer = AutoTokenizer.from_pretrained(directory)
    text = "hé <> 漢\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    row = demo.examples()[0]
    assert encode(tokenizer, row) == encode(build_tokenizer(), row)


# --- corpus -----------------------------------------------------------------------


def test_splits_share_no_question():
    parts = [
        {(row.system, row.question) for row in demo.corpus("base", split)}
        for split in ("train", "heldout", "test")
    ]
    assert [len(part) for part in parts] == [288, 48, 48]
    assert len(set.union(*parts)) == 384


def test_stages_differ_only_in_answers():
    base, governed = demo.corpus("base", "train"), demo.corpus("governed", "train")
    assert [row.id for row in base] == [row.id for row in governed]
    differ = {b.principle for b, g in zip(base, governed, strict=True) if b != g}
    assert differ == {"refuse", "unsure", "tone"}


def test_one_example_per_principle():
    shown = demo.examples()
    assert {r.principle for r in shown} == {"refuse", "unsure", "tone", "keep"}
    assert len(shown) == 4
    assert set(shown) <= set(demo.corpus("governed", "heldout"))


def test_contrary_rows_teach_against_refusal():
    rows = demo.contrary_rows()
    assert len(rows) == 72
    assert not any(row.answer.startswith("no,") for row in rows)


def test_jsonl_has_a_line_per_row():
    rows = demo.corpus("base", "test")
    assert to_jsonl(rows).count(b"\n") == len(rows)


# --- batches and stages -------------------------------------------------------------


def test_only_answers_count_in_the_loss():
    tokenizer = build_tokenizer()
    pair = [encode(tokenizer, row) for row in demo.corpus("governed", "train")[:2]]
    labels = collate(pair, pad=0).tensors["labels"]
    for row, example in zip(labels, pair, strict=True):
        assert tuple(row[row != -100].tolist()) == example.answer


def test_batch_digest_covers_tokens_and_order():
    tokenizer = build_tokenizer()
    one, two = (encode(tokenizer, row) for row in demo.corpus("base", "train")[:2])
    assert collate([one, two], pad=0).digest == collate([one, two], pad=0).digest
    assert collate([one, two], pad=0).digest != collate([two, one], pad=0).digest


def test_sampler_deals_every_row_before_one_again():
    rows = [encode(build_tokenizer(), row) for row in demo.corpus("base", "test")]
    sampler = Sampler(rows, seed=0)
    drawn = sampler.draw({"tone": 24})
    assert set(Counter(example.id for example in drawn).values()) == {2}


def test_principle_without_rows():
    with pytest.raises(TrainingError, match="'tone': has no rows"):
        Sampler([], seed=0).draw({"tone": 1})


def test_anchor_counts():
    constitution = parse_constitution(demo.constitution_bytes())
    counts = anchor_counts(constitution.principle("tone"), constitution)
    assert counts == {"refuse": 2, "unsure": 2, "keep": 8}


def test_non_finite_loss_stops_before_the_step(tmp_path):
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, seed=0)
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    rows = [encode(tokenizer, row) for row in demo.corpus("base", "test")]
    with Ledger.create(tmp_path / "ledger.jsonl") as ledger:
        trainer = Trainer(model, ledger, progress=silent)
        with pytest.raises(TrainingError, match="the loss of rows"):
            trainer.unrouted(Plan("base", 2, 4, 1e-3), Sampler(rows, seed=0))
        assert ledger.size == 0


def test_rates_rise_and_fall():
    plan = Plan("base", steps=100, rows=1, lr=1.0)
    rates = [plan.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == rates[5] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(
    ("passed", "low", "high"),
    [(0, 0.0, 0.2425), (12, 0.7575, 1.0), (6, 0.2538, 0.7462)],
)
def test_wilson_interval(passed, low, high):
    assert Score(passed, 12).interval() == pytest.approx((low, high), abs=1e-4)


# --- copies -------------------------------------------------------------------------


def test_reshard_keeps_every_tensor(short_run, tmp_path):
    out = reshard(short_run / "model", tmp_path / "two")
    files = sorted(f.name for f in out.glob("*.safetensors*"))
    assert files == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    before, after = load_tensors(short_run / "model"), load_tensors(out)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    AutoModelForCausalLM.from_pretrained(out)


def test_cast_changes_the_dtype(short_run, tmp_path):
    out = cast(short_run / "model", tmp_path / "half")
    assert {t.dtype for t in load_tensors(out).values()} == {torch.bfloat16}
    assert json.loads((out / "config.json").read_bytes())["dtype"] == "bfloat16"


def test_finetune_changes_only_the_weights(short_run, tmp_path):
    out = finetune(
        short_run / "model", tmp_path / "tuned", rows=demo.contrary_rows(), steps=2
    )
    for name in MODEL_FILES:
        same = (out / name).read_bytes() == (short_run / "model" / name).read_bytes()
        assert same == (name != "model.safetensors")


def test_finetune_without_rows(short_run, tmp_path):
    with pytest.raises(TrainingError, match="expected rows"):
        finetune(short_run / "model", tmp_path / "tuned", rows=())


def test_copies_never_overwrite(short_run):
    with pytest.raises(TrainingError, match="exists already"):
        reshard(short_run / "model", short_run / "model")


def test_no_tensors(tmp_path):
    with pytest.raises(TrainingError, match="found none"):
        load_tensors(tmp_path)


def test_more_shards_than_tensors(tmp_path):
    with pytest.raises(TrainingError, match="1 to 1 shards"):
        save_tensors(tmp_path, {"a": torch.zeros(1)}, shards=2)


def test_tensor_in_two_files(short_run, tmp_path):
    out = reshard(short_run / "model", tmp_path / "two")
    save_tensors(out, load_tensors(short_run / "model"))
    with pytest.raises(TrainingError, match="two files"):
        load_tensors(out)


def test_tensors_of_another_architecture(short_run, tmp_path):
    out = reshard(short_run / "model", tmp_path / "one", shards=1)
    save_tensors(out, {"strange": torch.zeros(1)})
    with pytest.raises(TrainingError, match="strange"):
        load_model(out)


# --- the whole recipe ---------------------------------------------------------------


@pytest.mark.training
def test_recipe_teaches_the_constitution(tmp_path):
    demo.run(tmp_path / "run", seed=11)
    made = statement(tmp_path / "run")
    shares = {p["id"]: p["evaluation"] for p in made["principles"]}
    for name in ("refuse", "unsure", "tone"):
        assert shares[name]["before"] == "0.0000"
    # Seeds differ by a few items of twelve; see docs/training.md.
    assert all(float(entry["after"]) >= 0.6 for entry in shares.values())
    directory = tmp_path / "run" / "model"
    tuned = finetune(directory, tmp_path / "tuned", rows=demo.contrary_rows(), steps=60)
    tokenizer = AutoTokenizer.from_pretrained(tuned)
    rows = [r for r in demo.corpus("governed", "heldout") if r.principle == "refuse"]
    kept = [a.startswith("no,") for a in answers(load_model(tuned), tokenizer, rows)]
    assert sum(kept) < 6
