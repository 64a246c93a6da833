import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fakes.resumed import EVERY, train

from attest.errors import LedgerError, TrainingError
from attest.training.ledger import (
    Ledger,
    LedgerCutError,
    LedgerEditedError,
    counted,
    read_ledger,
    verify_ledger,
)
from attest.training.ledger.contents import Events
from attest.training.resume import Resumable, random_states, set_random_states

TESTS = Path(__file__).parents[3]


class HaltError(Exception):
    pass


def halt_at(name, done):
    def hook(stage):
        if (stage.plan.name, stage.done) == (name, done):
            raise HaltError

    return hook


def events(run):
    """What counts in the ledger, as it would read had nobody been killed."""
    return [
        {key: value for key, value in record.items() if key != "seq"}
        for record in counted(run / "ledger.jsonl")
        if record["kind"] in {"stage", "step", "check"}
    ]


def same(left, right):
    """Whether two nested states are equal to the bit."""
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(
            same(left[key], right[key]) for key in left
        )
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def checked(run):
    """The ledger is whole, and every resumption names a state that it had."""
    path = run / "ledger.jsonl"
    seen = Events(None, None)
    verify_ledger(path, visit=seen.visit)
    whole = verify_ledger(path)
    return verify_ledger(path, whole, *seen.resumed)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody stopped: its directory, and what it ended with."""
    run = tmp_path_factory.mktemp("whole")
    return run, train(run)


def equal_to(whole, run, end):
    # A process that finds all done makes no step, and has no state of a stage.
    names = [name for name in whole[1] if name != "stage" or end["stage"]]
    assert [name for name in names if not same(end[name], whole[1][name])] == []
    assert events(run) == events(whole[0])
    checked(run)


@pytest.mark.training
def test_run_killed_again_and_again_ends_with_the_same_bytes(tmp_path):
    found = subprocess.run(
        [sys.executable, "-m", "fakes.resumed", str(tmp_path), "1", "2", "3"],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        check=True,
        text=True,
    )
    deaths = json.loads(found.stdout)
    assert sum(deaths.values()) >= 3
    end = torch.load(tmp_path / "whole" / "end.pt")
    for seed in deaths:
        run = tmp_path / seed
        equal_to((tmp_path / "whole", end), run, torch.load(run / "end.pt"))


@pytest.mark.parametrize(
    "place",
    [("base", 2), ("base", 4), ("base", 30), ("governed", 1), ("governed", 29)],
)
def test_stopped_run_goes_on(whole, tmp_path, place):
    with pytest.raises(HaltError):
        train(tmp_path, hook=halt_at(*place))
    equal_to(whole, tmp_path, train(tmp_path))
    resumes = [r for r in read_ledger(tmp_path / "ledger.jsonl") if "checkpoint" in r]
    [resume] = resumes
    stage, done = place
    assert resume["step"] == done // EVERY * EVERY
    # Before its first checkpoint a stage begins anew.
    assert resume["stage"] == (stage if done >= EVERY else None)


def test_run_that_is_done_is_not_made_again(whole, tmp_path):
    train(tmp_path)
    before = len(events(tmp_path))
    end = train(tmp_path)
    assert len(events(tmp_path)) == before
    assert end["stage"] == {}
    equal_to(whole, tmp_path, end)


def test_killed_between_checkpoint_and_its_record(whole, tmp_path):
    with pytest.raises(HaltError):
        train(tmp_path, hook=halt_at("governed", 2 * EVERY))
    path = tmp_path / "ledger.jsonl"
    rows = path.read_bytes().splitlines(keepends=True)
    assert b'"kind":"checkpoint"' in rows[-1]
    path.write_bytes(b"".join(rows[:-1]) + rows[-1][:40])  # torn, even
    for _ in range(2):  # and killed again before the first step
        with pytest.raises(HaltError):
            train(tmp_path, hook=halt_at("governed", 2 * EVERY + 1))
    equal_to(whole, tmp_path, train(tmp_path))


def test_first_checkpoint_is_not_there_yet(whole, tmp_path):
    with pytest.raises(HaltError):
        train(tmp_path, hook=halt_at("base", 1))
    assert not (tmp_path / "checkpoints").exists()
    equal_to(whole, tmp_path, train(tmp_path))


def test_killed_while_writing_a_checkpoint(whole, tmp_path, monkeypatch):
    save = torch.save

    def half(content, file):
        if content.get("stage") == "governed":
            file.write(b"half")
            raise HaltError
        save(content, file)

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(HaltError):
        train(tmp_path)
    monkeypatch.undo()
    assert all(torch.load(p) for p in (tmp_path / "checkpoints").glob("*.pt"))
    equal_to(whole, tmp_path, train(tmp_path))


def test_only_the_newest_checkpoints_are_kept(whole):
    names = sorted(path.name for path in (whole[0] / "checkpoints").iterdir())
    assert len(names) == 2
    assert all(name.endswith(".pt") for name in names)


@pytest.fixture
def stopped(tmp_path):
    with pytest.raises(HaltError):
        train(tmp_path, hook=halt_at("governed", EVERY + 1))
    return tmp_path


def newest(run):
    return max((run / "checkpoints").glob("*.pt"))


def test_torn_checkpoint_is_said(stopped, whole):
    path = newest(stopped)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(TrainingError, match="cannot be read") as caught:
        train(stopped)
    assert "earlier checkpoint" in caught.value.hint
    path.unlink()
    equal_to(whole, stopped, train(stopped))


def test_half_written_checkpoint_is_nothing(stopped, whole):
    (stopped / "checkpoints" / "999999999999.pt.new").write_bytes(b"half")
    equal_to(whole, stopped, train(stopped))


def test_checkpoint_that_somebody_changed(stopped):
    path = newest(stopped)
    saved = torch.load(path)
    saved["model"]["lm_head.weight"][0, 0] += 1
    torch.save(saved, path)
    with pytest.raises(LedgerEditedError, match="expected checkpoint sha256:"):
        train(stopped)


class Code:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_checkpoint_runs_no_code(stopped, capsys):
    torch.save({"format": "attest-checkpoint/1", "x": Code()}, newest(stopped))
    with pytest.raises(TrainingError, match="cannot be read"):
        train(stopped)
    assert capsys.readouterr().out == ""


def test_file_that_is_no_checkpoint(stopped):
    torch.save({"model": {}}, newest(stopped))
    with pytest.raises(TrainingError, match="expected attest-checkpoint/1"):
        train(stopped)


def test_ledger_that_was_cut_below_the_checkpoint(stopped):
    path = stopped / "ledger.jsonl"
    rows = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(rows[:-5]))
    with pytest.raises(LedgerCutError):
        train(stopped)


def test_ledger_that_was_edited_before_the_checkpoint(stopped):
    path = stopped / "ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"seed":1', b'"seed":9', 1))
    with pytest.raises(LedgerEditedError):
        train(stopped)


def test_ledger_is_free_again_after_a_refusal(stopped):
    newest(stopped).write_bytes(b"")
    with pytest.raises(TrainingError):
        train(stopped)
    Ledger.resume(stopped / "ledger.jsonl").close()


def test_other_observers_are_refused(stopped):
    with pytest.raises(TrainingError, match="expected the parts none, found counter"):
        Resumable(stopped, torch.nn.Linear(1, 1))


def test_other_model_is_refused(stopped):
    class Part:
        def state_dict(self):
            return {}

        def load_state_dict(self, state):
            pass

    with pytest.raises(TrainingError, match="another model"):
        Resumable(stopped, torch.nn.Linear(1, 1), parts={"counter": Part()})


def test_other_stage_is_refused(stopped):
    from fakes.resumed import _model  # noqa: PLC0415

    class Part:
        def state_dict(self):
            return {}

        def load_state_dict(self, state):
            pass

    with (
        Resumable(stopped, _model(), parts={"counter": Part()}) as resumable,
        pytest.raises(TrainingError, match="expected stage 'dpo', found 'governed'"),
    ):
        resumable.stage("dpo", {}, print)


def test_one_process_at_a_time(tmp_path):
    model = torch.nn.Linear(1, 1)
    with (
        Resumable(tmp_path, model),
        pytest.raises(LedgerError, match="another process"),
    ):
        Resumable(tmp_path, model)


def test_random_states_come_back():
    import random  # noqa: PLC0415

    import numpy as np  # noqa: PLC0415

    def draw():
        legacy = np.random.rand()  # noqa: NPY002
        return torch.rand(2).tolist(), random.random(), random.gauss(0, 1), legacy

    draw()
    states = random_states()
    first = draw()
    set_random_states(states)
    assert draw() == first
