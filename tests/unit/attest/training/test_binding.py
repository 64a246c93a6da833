import shutil
from dataclasses import replace

import pytest
from fakes.run import make_run

from attest.digests import digest
from attest.errors import (
    ConstitutionError,
    FormatError,
    LedgerError,
    RunMismatchError,
    VerificationError,
)
from attest.figures import settle
from attest.training.binding import bind
from attest.training.constitution import load_constitution
from attest.training.ledger import Ledger, LedgerCutError, LedgerEditedError
from attest.training.resistance.entry import resistance_entry
from attest.training.resistance.reader import parse_resistance

ROOT = digest(b"weights")


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", weights=ROOT)


def bound(run):
    return bind(run.path, run.statement)


def test_run_that_fits(run):
    found = bound(run)
    assert found.statement == run.statement
    assert [name for name, _ in found.checked] == [
        *("constitution", "schedule", "data", "ledger", "profile", "resistance"),
        "trace",
    ]
    assert found.unchecked == ()
    found.check_weights(ROOT)


def test_other_weights_than_the_last_stage_left(run):
    with pytest.raises(RunMismatchError, match="stage dpo, result") as caught:
        bound(run).check_weights(digest(b"other"))
    assert ROOT in str(caught.value)


def test_weights_that_were_not_attacked(run):
    def forget(statement):
        del statement["training"]["stages"][-1]["result"]

    run.edit(forget)
    with pytest.raises(RunMismatchError, match=r"resistance\.json, attacked"):
        bound(run).check_weights(digest(b"other"))


@pytest.mark.parametrize(
    "name",
    [
        "constitution.yaml",
        "schedule.json",
        "data/sft.jsonl",
        "data/dpo.jsonl",
        "data/heldout.jsonl",
        "profile.json",
        "resistance.json",
        "trace/sketches.safetensors",
        "trace/deltas-tone.safetensors",
        "ledger.jsonl",
    ],
)
def test_file_that_is_missing(run, name):
    (run.path / name).unlink()
    place = name.partition("/")[0] if name != "ledger.jsonl" else name
    with pytest.raises(RunMismatchError, match=place):
        bound(run)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("constitution.yaml", b"politely", b"rudely"),
        ("constitution.yaml", b"1.2.0", b"1.2.1"),
        ("constitution.yaml", b"steps-below-half: 10", b"steps-below-half: 1"),
        ("schedule.json", b"refuse", b"tone"),
        ("data/sft.jsonl", b"sft", b"dpo"),
        ("data/heldout.jsonl", b"heldout", b"trained"),
        ("profile.json", b"/1", b"/2"),
        ("resistance.json", b"runs", b"walk"),
        ("trace/deltas-refuse.safetensors", b"refuse", b"tone"),
    ],
)
def test_file_that_was_changed(run, name, old, new):
    path = run.path / name
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    place = name.partition("/")[0]
    with pytest.raises(RunMismatchError, match=f"{place}.*expected .*found"):
        bound(run)


def restated(run, name, content):
    """Write another file, and have the statement say its digest."""
    (run.path / name).write_bytes(content)
    if name == "resistance.json":
        measured = run.statement["principles"][0]["resistance"]["measured"]
        run.resistance(measured={**measured, "curves": digest(content)})
    else:
        member = name.partition(".")[0]
        run.edit(lambda s: s["training"].update({member: digest(content)}))


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        (b'"layers":[1]', b'"layers":[0]', "'refuse', layers"),
        (b'"digest":"sha256:', b'"digest":"sha256:0', "digest"),
        (b'"principle":"refuse"', b'"principle":"reject"', "route of 'refuse'"),
        (b'"schema":', b'"schema', r"schedule\.json"),
    ],
)
def test_schedule_that_routes_otherwise(run, old, new, match):
    content = (run.path / "schedule.json").read_bytes()
    assert old in content
    restated(run, "schedule.json", content.replace(old, new, 1))
    with pytest.raises((RunMismatchError, FormatError), match=match):
        bound(run)


def test_schedule_of_another_constitution(run):
    content = (run.path / "schedule.json").read_bytes()
    ours = run.statement["constitution"]["digest"].encode()
    restated(run, "schedule.json", content.replace(ours, digest(b"x").encode()))
    with pytest.raises(RunMismatchError, match=r"schedule\.json, constitution"):
        bound(run)


@pytest.mark.parametrize(
    "routing",
    [
        {"band": "all", "layers": [0, 1]},
        {"band": "500-1000", "layers": [1]},
        {"band": "none", "layers": [], "rule": "anchored-only"},
    ],
)
def test_principle_that_says_it_was_routed_otherwise(run, routing):
    run.principle(routing=routing)
    with pytest.raises(RunMismatchError, match="route of 'refuse'"):
        bound(run)


@pytest.mark.parametrize("name", ["profile", "trace", "schedule", "stages"])
def test_file_that_nobody_states(run, name):
    def forget(statement):
        del statement["training"][name]

    run.edit(forget)
    with pytest.raises(RunMismatchError, match=r"in the statement|that states"):
        bound(run)


def test_resistance_that_nobody_states(run):
    run.principle(resistance=None)
    with pytest.raises(RunMismatchError, match=r"resistance\.json"):
        bound(run)


def test_constitution_that_nobody_states(run):
    def forget(statement):
        del statement["constitution"]

    run.edit(forget)
    with pytest.raises(RunMismatchError, match=r"constitution\.yaml"):
        bound(run)


def test_broken_constitution(run):
    (run.path / "constitution.yaml").write_text("principles: []\n")
    with pytest.raises(ConstitutionError):
        bound(run)


@pytest.mark.parametrize("member", ["id", "version", "digest"])
def test_constitution_of_another_name(run, member):
    values = {"id": "x", "version": "9.9.9", "digest": digest(b"x")}
    run.edit(lambda s: s["constitution"].update({member: values[member]}))
    with pytest.raises(RunMismatchError, match=r"constitution\.yaml"):
        bound(run)


def test_principle_that_was_left_out(run):
    run.edit(lambda statement: statement["principles"].pop(0))
    (run.path / "resistance.json").unlink()
    with pytest.raises(RunMismatchError, match="principles: expected"):
        bound(run)


@pytest.mark.parametrize(
    ("member", "value"),
    [("digest", digest(b"x")), ("class", "adaptable"), ("id", "tone")],
)
def test_principle_that_says_something_else(run, member, value):
    run.principle(**{member: value})
    with pytest.raises(RunMismatchError, match="principle"):
        bound(run)


@pytest.mark.parametrize(
    "required",
    [
        None,
        {"suite": "std-1", "minStepsBelowHalf": 1, "onMiss": "fail"},
        {"suite": "std-1", "minStepsBelowHalf": 10, "onMiss": "record"},
        {"suite": "mild", "minStepsBelowHalf": 10, "onMiss": "fail"},
    ],
)
def test_requirement_that_was_softened(run, required):
    run.resistance(required=required)
    with pytest.raises(RunMismatchError, match="requirement: expected"):
        bound(run)


def test_requirement_that_was_kept_silent(run):
    run.principle(resistance=None)
    (run.path / "resistance.json").unlink()
    found = bound(run).statement
    assert found["principles"][0]["resistance"] == {
        "suite": "std-1",
        "required": {"suite": "std-1", "minStepsBelowHalf": 10, "onMiss": "fail"},
        "measured": None,
        "met": None,
    }
    assert settle(found["principles"], signed=["refuse"]).notes


def test_curves_of_another_constitution(run):
    content = (run.path / "resistance.json").read_bytes()
    ours = run.statement["constitution"]["digest"].encode()
    restated(run, "resistance.json", content.replace(ours, digest(b"x").encode()))
    with pytest.raises(RunMismatchError, match=r"resistance\.json, constitution"):
        bound(run)


# --- figures -----------------------------------------------------------------------


@pytest.fixture
def weak(tmp_path):
    """A run whose first principle was lost after four steps."""
    return make_run(tmp_path / "weak", weights=ROOT, steps=4)


def test_better_worst_case_than_the_curves_show(weak):
    entry = weak.statement["principles"][0]["resistance"]
    measured = entry["measured"]
    measured["worst"]["stepsBelowHalf"] = 40
    weak.resistance(measured=measured, met=True)
    settle(weak.statement["principles"])  # nothing in the statement contradicts it
    with pytest.raises(RunMismatchError, match=r"resistance\.json, refuse, measured"):
        bound(weak)


def test_met_that_the_curves_do_not_show(weak):
    weak.resistance(met=True)
    with pytest.raises(RunMismatchError, match="refuse, met: expected True"):
        bound(weak)


def test_attacked_principle_that_was_left_out(weak):
    weak.resistance(measured=None, met=None)
    with pytest.raises(RunMismatchError, match=r"resistance\.json"):
        bound(weak)


def test_weaker_suite_under_the_same_name(run):
    found = parse_resistance((run.path / "resistance.json").read_bytes())
    easy = replace(found.suite, seeds=(0,))
    runs = tuple(r for r in found.runs if r.seed == 0)
    other = replace(found, suite=easy, runs=runs)
    constitution = load_constitution(run.path / "constitution.yaml")
    run.principle(resistance=resistance_entry(constitution.principles[0], other))
    restated(run, "resistance.json", other.dumps())
    assert run.statement["principles"][0]["resistance"]["met"] is True
    with pytest.raises(RunMismatchError, match="suite std-1"):
        bound(run)


def test_curves_that_are_none(run):
    restated(run, "resistance.json", b"{}")
    with pytest.raises(RunMismatchError, match=r"resistance\.json"):
        bound(run)


def test_profiles_that_are_none(run):
    restated(run, "profile.json", b"[]")
    with pytest.raises(RunMismatchError, match="JSON"):
        bound(run)


def test_measured_profile_that_was_left_out(run):
    run.principle(profile=None)
    with pytest.raises(RunMismatchError, match=r"profile\.json, principles"):
        bound(run)


def test_profile_of_another_run(run, tmp_path):
    other = make_run(tmp_path / "other", missing=400_000)
    run.principle(profile=other.statement["principles"][0]["profile"])
    with pytest.raises(RunMismatchError, match=r"profile\.json, refuse, allocation"):
        bound(run)


def test_profile_with_another_depth_than_its_amounts(run):
    entry = run.statement["principles"][0]["profile"]
    run.principle(profile={**entry, "centroid": "0.9900"})
    with pytest.raises(FormatError, match="profile of 'refuse'"):
        bound(run)


def test_profile_that_does_not_add_up_is_signed_as_invalid(tmp_path):
    broken = make_run(tmp_path / "broken", missing=200_000_000)
    entry = broken.statement["principles"][0]["profile"]
    assert entry["valid"] is False
    found = settle(bound(broken).statement["principles"])
    assert found.principles[0]["profile"] == entry
    broken.principle(profile={**entry, "valid": True})
    with pytest.raises(VerificationError):
        bound(broken)


def test_evaluation_on_rows_of_training(run):
    trained = digest((run.path / "data" / "sft.jsonl").read_bytes())
    run.principle(evaluation={"data": trained})
    with pytest.raises(RunMismatchError, match="held-out rows"):
        bound(run)


def test_data_held_elsewhere_is_said_not_to_be_compared(run):
    def move(statement):
        entry = statement["training"]["stages"][0]["data"][0]
        entry["uri"] = "s3://bucket/sft.jsonl"

    run.edit(move)
    (run.path / "data" / "sft.jsonl").unlink()
    [line] = bound(run).unchecked
    assert "s3://bucket/sft.jsonl" in line


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a//b", ""])
def test_data_outside_the_run(run, name):
    run.edit(lambda s: s["training"]["stages"][0]["data"][0].update({"name": name}))
    with pytest.raises(FormatError):
        bound(run)


# --- stages ------------------------------------------------------------------------


def stage(run, number, **members):
    run.edit(lambda s: s["training"]["stages"][number].update(members))


def test_stage_that_begins_with_other_weights(run):
    stage(run, 1, base=digest(b"swapped"))
    with pytest.raises(RunMismatchError, match="stage dpo, base") as caught:
        bound(run)
    assert digest(b"after sft") in str(caught.value)


def test_stages_in_another_order(run):
    run.edit(lambda s: s["training"]["stages"].reverse())
    with pytest.raises(RunMismatchError):
        bound(run)


def test_stage_of_another_name(run):
    stage(run, 0, name="pre-train")
    with pytest.raises(RunMismatchError, match="stages: expected"):
        bound(run)


def test_stage_that_ends_too_late(run):
    logs = [s["eventLog"] for s in run.statement["training"]["stages"]]
    stage(run, 0, eventLog=logs[1])
    with pytest.raises(RunMismatchError, match="records of stage"):
        bound(run)


def test_stage_with_an_empty_log_hides_nothing(run):
    stage(run, 0, eventLog={"treeSize": 0, "root": digest(b"")})
    path = run.path / "ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b"refuse-00", b"refuse-01", 1))
    with pytest.raises(LedgerEditedError):
        bound(run)


@pytest.mark.parametrize("size", [-1, True, "9", None])
def test_form_of_an_event_log(run, size):
    stage(run, 0, eventLog={"treeSize": size, "root": digest(b"x")})
    with pytest.raises(FormatError):
        bound(run)


def test_parent_weights_that_no_stage_began_with(run, pristine_tiny):
    shutil.copytree(pristine_tiny, run.path / "parent")
    with pytest.raises(RunMismatchError, match="parent/"):
        bound(run)


# --- ledger ------------------------------------------------------------------------


def ledger(run, change):
    path = run.path / "ledger.jsonl"
    rows = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(change(rows)))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda r: [r[0].replace(b"sft", b"dpo"), *r[1:]], LedgerEditedError),
        (lambda r: r[:-1], LedgerCutError),
        (lambda r: [*r, r[-1]], LedgerEditedError),
        (lambda r: [*r[:2], r[3], r[2], *r[4:]], LedgerError),
    ],
)
def test_ledger_that_was_tampered_with(run, change, error):
    ledger(run, change)
    with pytest.raises(error):
        bound(run)


def test_ledger_of_a_run_that_was_resumed(run):
    with Ledger.resume(run.path / "ledger.jsonl") as log:
        at = log.summary()
        # Steps of a stage that was begun, lost with its process, and begun again.
        log.append({"kind": "stage", "stage": "rlaif"})
        log.append({"kind": "resume", "size": at.size, "root": at.root})
        head = log.summary()
    stage(run, 1, eventLog={"treeSize": head.size, "root": head.root})
    bound(run)


def test_ledger_that_resumed_from_what_it_never_was(run):
    with Ledger.resume(run.path / "ledger.jsonl") as log:
        log.append({"kind": "resume", "size": 8, "root": digest(b"x")})
        head = log.summary()
    stage(run, 1, eventLog={"treeSize": head.size, "root": head.root})
    with pytest.raises(LedgerEditedError, match="at 8 records"):
        bound(run)


@pytest.mark.parametrize(
    ("record", "match"),
    [
        ({"kind": "step", "principle": "greed"}, "'greed'"),
        ({"kind": "step", "principle": "tone", "principles": ["greed"]}, "'greed'"),
        ({"kind": "step", "principle": ["tone"]}, "principle"),
        ({"kind": "step", "principle": "tone", "route": digest(b"x")}, "route of"),
        ({"kind": "resume", "size": 99}, "size"),
        ({"kind": "resume", "size": True}, "size"),
        ({"kind": "stage", "constitution": digest(b"x")}, "constitution"),
        ({"kind": "stage", "schedule": digest(b"x")}, "schedule"),
        ({"kind": "step", "stage": "sft"}, "records of stage sft"),
        ({"kind": "stage", "stage": "rlaif"}, "stages"),
    ],
)
def test_ledger_that_tells_of_another_training(run, record, match):
    with Ledger.resume(run.path / "ledger.jsonl") as log:
        log.append(record)
        head = log.summary()
    stage(run, 1, eventLog={"treeSize": head.size, "root": head.root})
    with pytest.raises(RunMismatchError, match=match):
        bound(run)
